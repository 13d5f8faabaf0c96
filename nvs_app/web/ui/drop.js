// What is dropped anywhere on the page, pasted, or chosen as a folder goes the way of the field for files. A folder
// becomes a zip here (stored, not compressed), so that its files arrive with their places in it.
(() => {
  "use strict";
  const HIDDEN = /(^|\/)(\.|__MACOSX|Thumbs\.db$|desktop\.ini$)/i, MOST = 0xffffffff, FILES = 20000;
  const say = (words) => { const place = document.querySelector("[data-nvs=brought]"); if (place) place.textContent = words; };
  const field = () => document.querySelector("#nvs-upload input[type=file]");

  // One after another: two uploads that begin at once are more than gradio's field can tell apart.
  let before = Promise.resolve();
  const bring = (files) => (before = before.catch(() => {}).then(() => give(files)));
  // The field is away while an upload is under way: what comes then waits for it.
  async function give(files) {
    for (let tries = 0; !field() && tries < 200; tries++) await new Promise((go) => setTimeout(go, 300));
    if (!field() || !files.length) return;
    const carrier = new DataTransfer();
    files.forEach((file) => carrier.items.add(file));
    const taken = field();
    let arrived = false, idle = 0;
    window.addEventListener("nvs-brought", () => { arrived = true; }, { once: true });
    taken.files = carrier.files;
    taken.dispatchEvent(new Event("change", { bubbles: true }));
    // Until the server has taken it. What gradio refuses never arrives: then the field is soon there again, and stays.
    while (!arrived && idle < 40) { await new Promise((go) => setTimeout(go, 50)); idle = field() ? idle + 1 : 0; }
  }

  const TABLE = Uint32Array.from({ length: 256 }, (_, n) => { for (let k = 0; k < 8; k++) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1; return n >>> 0; });
  async function crc(file) {
    const reader = file.stream().getReader();
    let sum = 0xffffffff;
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return (sum ^ 0xffffffff) >>> 0;
      for (let i = 0; i < value.length; i++) sum = TABLE[(sum ^ value[i]) & 255] ^ (sum >>> 8);
    }
  }
  // Numbers as zip wants them: [value, bytes] one after the other, little-endian.
  const packed = (...numbers) => {
    const view = new DataView(new ArrayBuffer(numbers.reduce((sum, [, bytes]) => sum + bytes, 0)));
    let at = 0;
    for (const [value, bytes] of numbers) { if (bytes === 4) view.setUint32(at, value, true); else view.setUint16(at, value, true); at += bytes; }
    return view.buffer;
  };
  // files: [place in the folder, File]; their content stays on disk until it is sent.
  async function zip(name, files) {
    const parts = [], list = [];
    let at = 0, listed = 0;
    for (const [index, [place, file]] of files.entries()) {
      if (index % 10 === 0) say(`Packing ${name}: ${index} of ${files.length} files`);
      const text = new TextEncoder().encode(place);
      const facts = [[20, 2], [0x800, 2], [0, 2], [0, 2], [0x21, 2], [await crc(file), 4], [file.size, 4], [file.size, 4], [text.length, 2], [0, 2]];
      parts.push(packed([0x04034b50, 4], ...facts), text, file);
      list.push(packed([0x02014b50, 4], [20, 2], ...facts, [0, 2], [0, 2], [0, 2], [0, 4], [at, 4]), text);
      at += 30 + text.length + file.size; listed += 46 + text.length;
    }
    const end = packed([0x06054b50, 4], [0, 2], [0, 2], [files.length, 2], [files.length, 2], [listed, 4], [at, 4], [0, 2]);
    return new File([...parts, ...list, end], `${name}.zip`, { type: "application/zip" });
  }
  async function folder(name, files) {
    const kept = files.filter(([place]) => !HIDDEN.test(place)), bytes = kept.reduce((sum, [, file]) => sum + file.size, 0);
    const most = Math.min(MOST, Number(document.querySelector("[data-nvs-bytes]")?.dataset.nvsBytes) || MOST), mb = (x) => `${Math.round(x / 1048576).toLocaleString()} MB`;
    if (!kept.length) { say(`${name}: there are no files in it.`); return; }
    if (bytes > most || kept.length > FILES) { say(`${name}: ${kept.length} files of ${mb(bytes)}; ${FILES} files and ${mb(most)} at most in one upload.`); return; }
    try { await bring([await zip(name, kept)]); say(""); } catch { say(`${name}: a file in it could not be read.`); }
  }
  const read = (reader) => new Promise((go, fail) => reader.readEntries(go, fail));
  async function within(entry, place) {
    if (entry.isFile) return [[place, await new Promise((go, fail) => entry.file(go, fail))]];
    const found = [], reader = entry.createReader();
    for (let some = await read(reader); some.length && found.length <= FILES; some = await read(reader)) {
      for (const inner of some) if (!HIDDEN.test(inner.name)) found.push(...await within(inner, place ? `${place}/${inner.name}` : inner.name));
    }
    return found;
  }
  async function take(entries, files) {
    const folders = entries.filter((entry) => entry.isDirectory);
    if (!folders.length) { await bring(files); return; }
    const alone = entries.length === 1;
    try {
      const found = [];
      for (const entry of entries) found.push(...await within(entry, alone ? "" : entry.name));
      await folder(folders[0].name, found);
    } catch { say(`${folders[0].name}: a file in it could not be read.`); }
  }

  let own = false; // an image of the page itself is dragged
  const carries = (event) => !own && [...(event.dataTransfer?.types || [])].includes("Files");
  const mark = (on) => document.body.classList.toggle("nvs-dropping", on);
  let leaving = 0;
  document.addEventListener("dragstart", () => { own = true; });
  document.addEventListener("dragend", () => { own = false; });
  document.addEventListener("dragover", (event) => {
    if (!carries(event)) return;
    event.preventDefault(); mark(true);
    clearTimeout(leaving); leaving = setTimeout(() => mark(false), 400);
  });
  document.addEventListener("drop", (event) => {
    if (!carries(event)) return;
    const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean), files = [...event.dataTransfer.files];
    mark(false); say("");
    if (event.target.closest?.("#nvs-upload") && !entries.some((entry) => entry.isDirectory)) return; // gradio's own
    event.preventDefault(); event.stopPropagation();
    event.target.closest?.("#nvs-upload")?.querySelectorAll("button").forEach((zone) => zone.dispatchEvent(new DragEvent("dragleave", { bubbles: true })));
    take(entries, files);
  }, true);
  document.addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files || [])].filter((file) => /^(image|video)\//.test(file.type) || /\.(zip|tar|tgz|heic|heif|safetensors)$/i.test(file.name));
    if (!files.length) return;
    event.preventDefault(); say("");
    bring(files);
  });
  document.addEventListener("click", (event) => {
    if (!event.target.closest?.("[data-nvs-folder]")) return;
    const chooser = Object.assign(document.createElement("input"), { type: "file", webkitdirectory: true });
    chooser.addEventListener("change", () => {
      const files = [...chooser.files], name = files[0]?.webkitRelativePath.split("/")[0] || "folder";
      folder(name, files.map((file) => [file.webkitRelativePath.split("/").slice(1).join("/") || file.name, file]));
    });
    chooser.click();
  });
})();
