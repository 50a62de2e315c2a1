const by = id => document.getElementById(id);
const percent = value => value > 0 && value < 0.0005 ? "<0.1%" : `${(100 * value).toFixed(1)}%`;
const milliseconds = value => `${value.toFixed(value < 10 ? 1 : 0)} ms`;
const make = (tag, properties = {}, ...children) => {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
};

const sentence = text => text.replace(/^[a-z](?=[a-z]* )/, letter => letter.toUpperCase()).replace(/\.?$/, ".");

// Asking.

class Problem extends Error {  // its message is a sentence for people
  constructor(message, passing = false) {
    super(message);
    this.passing = passing;  // another try may help
  }
}
let token = "", model = null;
const ask = async (path, options = {}) => {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem("The service does not answer.", true);
  }
  if (response.ok) return response;
  const told = (await response.json().catch(() => null))?.error;
  by("access").hidden = response.status !== 401 && by("access").hidden;
  if (response.status === 401) by("token").focus();
  const message = told ? sentence(told) : `The service answers with status ${response.status}.`;
  throw new Problem(message, response.status === 408 || response.status >= 429);
};
const read = async response => {
  try {
    return await response.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem("The service's answer broke off.", true);
  }
};
const meet = async () => {
  model ??= await ask("v1/model").then(read);
  by("network").textContent = `${model.checkpoint}: ${model.describe}`;
  document.body.classList.toggle("classifier", model.task === "classification");
  return model;
};

// What was answered.

const bytes = base64 => Uint8Array.from(atob(base64), letter => letter.charCodeAt(0));
// The values and the palette of a PNG of 8 bits and one channel: exactly, where browsers may change what is read off a canvas.
const decode = async png => {
  const view = new DataView(png.buffer), width = view.getUint32(16), height = view.getUint32(20), chunks = {};
  for (let at = 8; at < png.length; at += 12 + view.getUint32(at))
    (chunks[String.fromCharCode(...png.subarray(at + 4, at + 8))] ??= []).push(png.subarray(at + 8, at + 8 + view.getUint32(at)));
  const stream = new Blob(chunks.IDAT).stream().pipeThrough(new DecompressionStream("deflate"));
  const rows = new Uint8Array(await new Response(stream).arrayBuffer()), values = new Uint8Array(width * height);
  for (let y = 0, from = 0, to = 0; y < height; y++) {
    const filter = rows[from++];  // PNG, third edition, section 9
    for (let x = 0; x < width; x++, from++, to++) {
      const left = x ? values[to - 1] : 0, up = y ? values[to - width] : 0, corner = x && y ? values[to - width - 1] : 0;
      let guess = 0;
      if (filter === 1) guess = left;
      else if (filter === 2) guess = up;
      else if (filter === 3) guess = (left + up) >> 1;
      else if (filter === 4) {
        const a = Math.abs(up - corner), b = Math.abs(left - corner), c = Math.abs(left + up - 2 * corner);
        guess = a <= b && a <= c ? left : b <= c ? up : corner;
      }
      values[to] = rows[from] + guess;
    }
  }
  return { width, height, values, palette: chunks.PLTE?.[0] };
};

// What is shown: the picture, and the labels in the colours of the classes that are on.

const MOST = 4e6;  // pixels on the screen; files are made at full size
let current = null;
const fitted = (width, height) => {
  const scale = Math.min(1, Math.sqrt(MOST / (width * height)));
  return [Math.max(1, Math.round(width * scale)), Math.max(1, Math.round(height * scale))];
};
const drawPicture = (canvas, width, height) => {
  Object.assign(canvas, { width, height });
  if (!current.image) return;
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(current.image, 0, 0, width, height);
};
const drawMask = (canvas, width, height) => {
  Object.assign(canvas, { width, height });
  const { labels, palette, on } = current, context = canvas.getContext("2d"), pixels = context.createImageData(width, height);
  const colours = new Uint32Array(256), words = new Uint32Array(pixels.data.buffer);
  for (const index of on) colours[index] = (255 << 24) | (palette[3 * index + 2] << 16) | (palette[3 * index + 1] << 8) | palette[3 * index];
  for (let y = 0, to = 0; y < height; y++) {
    const row = Math.floor((y + 0.5) / height * current.height) * current.width;
    for (let x = 0; x < width; x++) words[to++] = colours[labels[row + Math.floor((x + 0.5) / width * current.width)]];
  }
  context.putImageData(pixels, 0, 0);
};
const showPicture = (width, height) => {
  by("views").style.setProperty("--ratio", width / height);
  for (const canvas of [by("picture"), by("plain").firstChild]) drawPicture(canvas, ...fitted(width, height));
};
const showMask = () => drawMask(by("mask"), ...fitted(current.width, current.height));
// Whether browsers decode it as the service does: turned by its EXIF block, which no two agree on in WebP, and of 8 bits.
const isPlain = content => /^(\xff\xd8|\x89PNG.{20}[^\x10]|GIF8|BM)/s.test(String.fromCharCode(...new Uint8Array(content, 0, Math.min(25, content.byteLength))));
const loaded = async blob => {
  const image = new Image(), address = image.src = URL.createObjectURL(blob);
  try {
    await image.decode();
    return image;
  } catch {
    return null;
  } finally {
    URL.revokeObjectURL(address);
  }
};

// Reading values off.

const spots = [...document.querySelectorAll(".spot")];
const point = (x, y, aloud = false) => {
  const { width, height, labels, certainty, names, palette } = current;
  x = Math.min(width - 1, Math.max(0, x));
  y = Math.min(height - 1, Math.max(0, y));
  Object.assign(current, { x, y });
  const index = labels[y * width + x], row = Math.floor(y * certainty.height / height), column = Math.floor(x * certainty.width / width);
  const certain = certainty.values[row * certainty.width + column] / 255;  // often of fewer pixels
  const text = `${names.get(index) ?? "ignored"}, probability ${certain.toFixed(2)}`;
  const chip = make("i", { className: "chip" });
  chip.style.background = `rgb(${palette.subarray(3 * index, 3 * index + 3).join()})`;
  by("under").replaceChildren(make("span", { className: "named" }, chip, text), ` at ${x}, ${y}`);
  for (const spot of spots) {
    spot.hidden = false;
    spot.style.left = `${100 * (x + 0.5) / width}%`;
    spot.style.top = `${100 * (y + 0.5) / height}%`;
  }
  for (const row of by("list").children) row.classList.toggle("at", row.value === index);
  if (aloud) by("said").textContent = `${text}, at ${x}, ${y}`;
};
const unpoint = () => {
  spots.forEach(spot => spot.hidden = true);
  for (const row of by("list").children) row.classList.remove("at");
  by("under").textContent = current?.labels ? "Point at the picture, or focus it and use the arrow keys (Shift: a pixel), to read its classes." : "";
};
const place = event => {
  const box = event.currentTarget.getBoundingClientRect();
  return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
};
const setWipe = value => {
  by("wipe").value = value;
  by("views").style.setProperty("--wipe", `${by("wipe").value}%`);
  by("wipe-value").textContent = `${by("wipe").value}%`;
};
const view = () => document.querySelector("[name=view]:checked").value;
for (const frame of document.querySelectorAll(".frame")) {
  const follow = event => {
    if (!current?.labels) return;
    const [x, y] = place(event);
    if (view() === "wipe" && event.buttons) setWipe(100 * x);
    point(Math.floor(x * current.width), Math.floor(y * current.height));
  };
  frame.onpointerdown = event => {
    if (view() === "wipe") frame.setPointerCapture(event.pointerId);
    follow(event);
  };
  frame.onpointermove = follow;
  frame.onpointerleave = event => event.pointerType === "mouse" && unpoint();
}
by("shown").onkeydown = event => {
  const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
  if (!step || !current?.labels) return;
  event.preventDefault();
  const { width, height, x = width >> 1, y = height >> 1 } = current;
  const size = event.shiftKey ? 1 : Math.max(1, Math.round(Math.max(width, height) / 50));
  point(x + size * step[0], y + size * step[1], true);
};

// Steering.

const opacity = () => by("opacity").value / 100;
const setOpacity = () => {
  by("mask").style.opacity = opacity();
  by("opacity-value").textContent = `${by("opacity").value}%`;
};
by("opacity").oninput = setOpacity;
by("wipe").oninput = () => setWipe(by("wipe").value);
setOpacity();
setWipe(by("wipe").value);  // which browsers keep over a reload
const setView = () => {
  by("result").classList.remove("over", "wipe", "side");
  by("result").classList.add(view());
  by("wiping").hidden = view() !== "wipe";
};
by("view").onchange = setView;
setView();
const toggle = (boxes, on) => {
  for (const box of boxes) {
    box.checked = on ?? box.checked;
    current.on[box.checked ? "add" : "delete"](Number(box.value));
  }
  showMask();
};
by("list").onchange = event => toggle([event.target]);
by("on").onclick = () => toggle(by("list").querySelectorAll("input"), true);
by("off").onclick = () => toggle(by("list").querySelectorAll("input"), false);

const save = (blob, name) => {
  const link = make("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
};
by("mask-file").onclick = () => save(new Blob([current.png], { type: "image/png" }), `${current.stem}-mask.png`);
by("coco-file").onclick = () => save(new Blob([JSON.stringify(current.coco, null, 1)], { type: "application/json" }), `${current.stem}-coco.json`);
by("overlay-file").onclick = () => {
  const { width, height, stem } = current, canvas = make("canvas"), mask = make("canvas");
  drawPicture(canvas, width, height);
  drawMask(mask, width, height);
  const context = canvas.getContext("2d");
  context.globalAlpha = opacity();
  context.drawImage(mask, 0, 0);
  canvas.toBlob(blob => blob ? save(blob, `${stem}-overlay.png`) : complain("This browser has no room for an overlay of this size; take the mask."), "image/png");
};

// One picture.

let running = null, last = null;
const complain = (message, again = null) => {
  by("problem").hidden = false;
  by("problem").firstChild.textContent = message;
  by("again").hidden = !again;
  by("again").onclick = again;
};
const classRow = (name, share, index, palette) => {
  const parts = [make("span", { textContent: name }), make("span", { textContent: percent(share) })];
  const fill = make("div");
  fill.style.width = percent(share);
  const bar = make("div", { className: "bar" }, fill);
  if (!palette) return make("li", {}, make("div", { className: "plain" }, ...parts), bar);
  const chip = make("i", { className: "chip" });
  chip.style.background = `rgb(${palette.subarray(3 * index, 3 * index + 3).join()})`;
  const box = make("input", { type: "checkbox", value: index, checked: current.on.has(index) });
  return make("li", { value: index }, make("label", {}, box, chip, ...parts), bar);
};
const explain = (answer, timing, whole) => {
  const stages = [...timing.matchAll(/([\w-]+);dur=([\d.]+)/g)].map(([, name, time]) => [name, Number(time)]);
  const inside = stages.reduce((sum, [, time]) => sum + time, 0);
  const names = { decode: "reading the picture", wait: "waiting", network: "the network", encode: "writing the answer" };
  by("stages").replaceChildren(...[...stages, ["way", Math.max(0, whole - inside)]].map(([name, time]) => {
    const fill = make("div");
    fill.style.width = `${100 * time / whole}%`;
    return make("div", { className: "pair" }, make("b", { textContent: names[name] ?? (name === "way" ? "there and back" : name) }),
      make("div", { className: "bar" }, fill), make("span", { textContent: milliseconds(time) }));
  }));
  const facts = { Time: milliseconds(whole), Picture: `${current.name}, ${answer.width} x ${answer.height}`, Network: model.describe,
    Checkpoint: model.checkpoint, Runtime: model.runtime, Protocol: answer.protocol };
  by("how").querySelector("tbody").replaceChildren(...Object.entries(facts).map(([name, value]) =>
    make("tr", {}, make("th", { scope: "row", textContent: name }), make("td", { textContent: value }))));
};
const fill = async answer => {
  const { width, height, classes, picture } = answer;
  if (picture) current.image = await loaded(new Blob([bytes(picture)]));
  const fits = current.image?.naturalWidth === width && current.image?.naturalHeight === height;
  Object.assign(current, { width, height, image: fits ? current.image : null });
  showPicture(width, height);
  by("note").hidden = fits;
  if (answer.mask) {
    const png = bytes(answer.mask), [{ values: labels, palette }, certainty] = await Promise.all([decode(png), decode(bytes(answer.confidence))]);
    const names = new Map([...model.classes, ...classes].map(({ index, name }) => [index, name]));
    const on = new Set(classes.map(({ index }) => index).filter(index => index !== model.background));
    Object.assign(current, { png, labels, palette, certainty, names, on, coco: answer.coco });
    showMask();
  }
  by("shown").role = answer.mask ? "application" : "img";
  by("shown").tabIndex = answer.mask ? 0 : -1;
  by("shown").ariaLabel = answer.mask ? `${current.name} with the classes of its pixels; arrow keys read them` : current.name;
  by("list").replaceChildren(...classes.map(({ index, name, share, probability }) => classRow(name, share ?? probability, index, current.palette)));
};
const start = async (file, name) => {
  running?.abort();
  const { signal } = running = new AbortController(), mine = { name, stem: name.replace(/\.[^.]*$/, "") || "picture" };
  const check = () => signal.throwIfAborted();
  last = () => start(file, name);
  by("problem").hidden = true;
  try {
    let content;
    try {
      content = await file.arrayBuffer();  // a folder, or a file that is gone, is found out here
    } catch {
      throw new Problem(`${name} cannot be read.`);
    }
    check();
    const blob = new Blob([content], { type: file.type }), image = await loaded(blob), own = image && isPlain(content);
    check();
    current = Object.assign(mine, { image });
    by("result").hidden = !image;
    by("result").setAttribute("aria-busy", "true");
    by("busy").hidden = false;
    by("answer").hidden = by("how").hidden = by("note").hidden = true;
    unpoint();
    by("mask").width = by("mask").width;  // empty
    if (image) showPicture(image.naturalWidth, image.naturalHeight);
    by("said").textContent = `Asking the network about ${name}`;
    await meet();
    const limit = model.limits.bytes;
    if (blob.size > limit) throw new Problem(`${name} has ${blob.size} bytes, more than the ${limit} that this service takes; scale it down.`);
    check();
    const path = (model.task === "classification" ? "v1/classify?top=5" : "v1/segment?format=all") + (own ? "" : "&picture=true");
    const form = new FormData(), begin = performance.now();
    form.append("image", blob, name);
    const response = await ask(path, { method: "POST", body: form, signal });
    const answer = await read(response), whole = performance.now() - begin;
    check();
    await fill(answer);
    check();
    explain(answer, response.headers.get("Server-Timing") ?? "", whole);
    by("result").hidden = by("answer").hidden = by("how").hidden = false;
    const spoken = answer.classes.slice(0, 5).map(({ name, share, probability }) => `${name} ${percent(share ?? probability)}`);
    by("said").textContent = `Answered: ${spoken.join(", ")}`;
    unpoint();
  } catch (error) {
    if (signal.aborted) return;
    model = null;  // another one may answer the next time
    by("result").hidden = true;
    by("said").textContent = "";
    const message = error instanceof Problem ? error.message : `The answer cannot be shown (${error.message}).`;
    complain(message.replace(/^image:/, `${name}:`), error.passing && last);
  } finally {
    if (!signal.aborted) {
      by("busy").hidden = true;
      by("result").removeAttribute("aria-busy");
    }
  }
};

// Pictures come in.

const take = (files, otherwise) => files.length ? start(files[0], files[0].name || "picture") : complain(otherwise);
for (const [button, input] of [["choose", "file"], ["photograph", "camera"]]) {
  by(button).onclick = () => by(input).click();
  by(input).onchange = () => {
    if (by(input).files.length) take([...by(input).files]);
    by(input).value = "";  // so that the same one can be chosen again
  };
}
for (const button of document.querySelectorAll(".sample")) button.onclick = async () => {
  const { name } = button.dataset;
  try {
    const blob = await ask(`samples/${name}`).then(response => response.blob());
    start(blob, name);
  } catch (error) {
    complain(error.message, () => button.click());
  }
};
let depth = 0;
const over = step => document.body.classList.toggle("dropping", (depth = Math.max(0, depth + step)) > 0);
document.addEventListener("dragenter", () => over(1));
document.addEventListener("dragleave", () => over(-1));
document.addEventListener("dragover", event => event.preventDefault());
document.addEventListener("drop", event => {
  event.preventDefault();
  over(-depth);
  take([...event.dataTransfer.files], "What was dropped is no file; save the picture, and drop that.");
});
document.addEventListener("paste", event => {
  if (event.target !== by("token")) take([...event.clipboardData.files], "There is no picture in what was pasted.");
});
const greet = () => meet().then(() => by("problem").hidden = true).catch(error => complain(error.message, greet));
by("access").onsubmit = event => {
  event.preventDefault();
  token = by("token").value.trim();
  by("access").hidden = by("problem").hidden = true;
  (last ?? greet)();
};
greet();
