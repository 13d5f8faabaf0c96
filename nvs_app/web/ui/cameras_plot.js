// The plot of the cameras: a thumbnail beside the pointer, and an event for a click.
//
//   nvsCameras.attach(document.querySelector("#cameras"));
//   document.addEventListener("nvs-camera", (event) => jumpTo(event.detail.index));
//
// attach() waits for the plot where it is not there yet, and follows it when the page draws another one.
(() => {
  "use strict";

  const tip = () => {
    let box = document.getElementById("nvs-plot-tip");
    if (!box) {
      box = document.createElement("figure");
      box.id = "nvs-plot-tip";
      box.setAttribute("aria-hidden", "true");
      Object.assign(box.style, {
        position: "fixed", zIndex: 1000, margin: 0, padding: "4px", borderRadius: "8px", pointerEvents: "none",
        background: "var(--background-fill-primary, #fff)", border: "1px solid var(--border-color-primary, #bbb)",
        boxShadow: "0 4px 16px rgb(0 0 0 / 25%)", display: "none",
      });
      const image = document.createElement("img");
      Object.assign(image.style, { display: "block", width: "112px", height: "auto", borderRadius: "5px", margin: 0 });
      image.alt = "";
      box.append(image);
      document.body.append(box);
    }
    return box;
  };

  const hide = () => { tip().style.display = "none"; };

  // The view of a point, or -1: of the sparse points, and of photos without a camera.
  const viewOf = (event) => {
    const data = event && event.points && event.points[0] && event.points[0].customdata;
    const index = data === undefined || data === null ? -1 : Number(data[0]);
    return Number.isInteger(index) ? index : -1;
  };

  const show = (plot, event) => {
    const index = viewOf(event);
    const uris = (plot.layout && plot.layout.meta && plot.layout.meta.thumbnails) || [];
    const uri = index >= 0 ? uris[index] : undefined;
    if (typeof uri !== "string" || !uri.startsWith("data:image/")) { hide(); return; }
    const box = tip();
    box.firstChild.src = uri;
    box.style.display = "block";
    const at = event.event || {};
    const x = at.clientX === undefined ? plot.getBoundingClientRect().left : at.clientX;
    const y = at.clientY === undefined ? plot.getBoundingClientRect().top : at.clientY;
    // On the side where there is room, and clear of plotly's own label.
    const left = x + 150 < window.innerWidth ? x + 18 : x - 140;
    const top = y > 150 ? y - 130 : y + 24;
    box.style.left = `${Math.max(4, left)}px`;
    box.style.top = `${Math.max(4, top)}px`;
  };

  const follow = (container, plot) => {
    if (plot.nvsFollowed || typeof plot.on !== "function") return;
    plot.nvsFollowed = true;
    let hovered = -1, pressed = null;
    const choose = (index) => {
      if (index < 0) return;
      hide();
      container.dispatchEvent(new CustomEvent("nvs-camera", { bubbles: true, detail: { index } }));
    };
    plot.on("plotly_hover", (event) => { hovered = viewOf(event); show(plot, event); });
    plot.on("plotly_unhover", () => { hovered = -1; hide(); });
    plot.on("plotly_relayout", hide);
    plot.addEventListener("mouseleave", hide);
    // Plotly tells a click when it next draws: never for a short one on a slow machine, and for drags too. So clicks
    // are told from drags here; its own event only says what a finger met, where there is no hovering.
    plot.on("plotly_click", (event) => { hovered = viewOf(event); });
    plot.addEventListener("pointerdown", (event) => { pressed = [event.clientX, event.clientY, hovered]; }, true);
    plot.addEventListener("pointerup", (event) => {
      if (!pressed) return;
      const [x, y, index] = pressed;
      pressed = null;
      if (Math.hypot(event.clientX - x, event.clientY - y) >= 5) return;
      if (index >= 0) choose(index);
      else if (event.pointerType === "touch") window.setTimeout(() => choose(hovered), 200);
    }, true);
  };

  const attach = (container) => {
    if (!container || container.nvsWatched) return;
    container.nvsWatched = true;
    const look = () => {
      for (const plot of container.querySelectorAll(".js-plotly-plot")) follow(container, plot);
    };
    look();
    new MutationObserver(() => { look(); window.setTimeout(look, 300); }).observe(container, { childList: true, subtree: true });
  };

  window.nvsCameras = { attach };
})();
