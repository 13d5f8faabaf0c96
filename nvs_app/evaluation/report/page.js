// Draws the charts in the page's own colours (light or dark), sorts tables, finds rows.
(() => {
  const figures = JSON.parse(document.getElementById("figures").textContent);

  // "@name" in a figure is the CSS variable --name.
  const coloured = (value, style) => {
    if (typeof value === "string" && value.startsWith("@")) return style.getPropertyValue("--" + value.slice(1)).trim();
    if (Array.isArray(value)) return value.map((item) => coloured(item, style));
    if (value && typeof value === "object")
      return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, coloured(item, style)]));
    return value;
  };

  const draw = () => {
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue("--" + name).trim();
    for (const [id, figure] of Object.entries(figures)) {
      const { data, layout } = coloured(figure, style);
      const axis = { gridcolor: colour("rule"), linecolor: colour("rule"), zeroline: false, automargin: true, ticks: "" };
      const yaxis = { ...axis, ...layout.yaxis, zerolinecolor: colour("soft") };
      Plotly.react(id, data, {
        ...layout,
        margin: { l: 54, r: 14, t: 34, b: 44 },
        paper_bgcolor: "rgba(0,0,0,0)",
        plot_bgcolor: "rgba(0,0,0,0)",
        font: { family: getComputedStyle(document.body).fontFamily, size: 13, color: colour("soft") },
        hoverlabel: { font: { family: getComputedStyle(document.body).fontFamily } },
        legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom" },
        xaxis: { ...axis, showgrid: false, ...layout.xaxis },
        yaxis,
      }, { displayModeBar: false, responsive: true });
    }
    document.documentElement.dataset.drawn = "yes";
  };
  draw();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);

  for (const table of document.querySelectorAll("table")) {
    const heads = [...table.querySelectorAll("thead th")];
    heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") === "descending" || (column === 0 && !head.hasAttribute("aria-sort"));
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const key = (row) => row.cells[column].textContent.replaceAll(",", "");
      const rows = [...table.tBodies[0].rows].sort((a, b) => {
        const [x, y] = [parseFloat(key(a)), parseFloat(key(b))];
        const order = column && !isNaN(x) && !isNaN(y) ? x - y : key(a).localeCompare(key(b), "en", { numeric: true });
        return up ? order : -order;
      });
      table.tBodies[0].append(...rows);
    }));
  }
  for (const input of document.querySelectorAll("[data-filter]")) {
    const body = document.getElementById(input.dataset.filter).tBodies[0];
    input.addEventListener("input", () => {
      const wanted = input.value.toLowerCase();
      for (const row of body.rows) row.hidden = !row.cells[0].textContent.toLowerCase().includes(wanted);
    });
  }
})();
