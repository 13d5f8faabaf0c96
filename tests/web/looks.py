"""What a page's looks are asked in a browser: scripts that return what is wrong, an empty list where nothing is."""

# Texts whose contrast to what lies behind them is below 4.5; over the rendered image it may be white or black.
POOR_CONTRAST = r"""() => {
  const parse = (text) => {
    const found = text.match(/[\d.]+/g).map(Number);
    return [...found.slice(0, 3), found[3] ?? 1]; };
  const over = (top, under) => [0, 1, 2].map((i) => top[i] * top[3] + under[i] * (1 - top[3])).concat(1);
  const linear = (x) => (x <= 0.03928 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4);
  const light = ([r, g, b]) => 0.2126 * linear(r / 255) + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255);
  const behind = (element) => {
    const layers = [], image = [[255, 255, 255, 1], [0, 0, 0, 1]];
    let grounds = image.slice(0, 1);
    for (let at = element; at; at = at.parentElement) {
      if (at.matches('.nvs-image')) { grounds = image; break; }
      layers.push(parse(getComputedStyle(at).backgroundColor));
      if (layers.at(-1)[3] === 1) break;
    }
    return grounds.map((ground) => layers.toReversed().reduce((under, top) => over(top, under), ground));
  };
  const poor = [];
  for (const element of document.querySelectorAll('.gradio-container *')) {
    const texts = [...element.childNodes].filter((node) => node.nodeType === 3);
    const text = texts.map((node) => node.textContent.trim()).join('');
    if (!text || !element.checkVisibility({ checkOpacity: true, checkVisibilityCSS: true })) continue;
    if (element.closest(':disabled, [hidden], svg, .sr-only') || element.offsetHeight < 2) continue;
    const ratio = Math.min(...behind(element).map((ground) => {
      const own = light(over(parse(getComputedStyle(element).color), ground));
      const [high, low] = [own, light(ground)].sort((x, y) => y - x);
      return (high + 0.05) / (low + 0.05);
    }));
    if (ratio < 4.5) poor.push(`${ratio.toFixed(2)} ${element.tagName} .${element.className} ${text.slice(0, 40)}`);
  }
  return poor; }"""

# Controls without a name for those who do not see them.
UNNAMED = """() => [...document.querySelectorAll('button, input, select, a, [role=tab]')]
  .filter((e) => e.checkVisibility())
  .filter((e) => !(e.textContent.trim() || e.getAttribute('aria-label') || e.labels?.length || e.title))
  .map((e) => e.outerHTML.slice(0, 160))"""

# Controls that are too small for a finger; words inside of sentences are left alone.
SMALL = """() => [...document.querySelectorAll('#nvs-main button, #nvs-main select, #nvs-header button')]
  .filter((e) => e.checkVisibility() && !e.closest('p, .nvs-tile, [data-path=marks], .wrap')
    && Math.min(e.offsetHeight, e.offsetWidth) < 44)
  .map((e) => `${e.offsetWidth}x${e.offsetHeight} ${e.outerHTML.slice(0, 90)}`)"""
