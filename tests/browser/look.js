// What the tests of looks ask of a page. Texts are the text nodes that are rendered, each with the boxes of its lines;
// those that are for screen readers alone (.unseen) are none.
({
  texts() {
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), found = [];
    for (let node; (node = walker.nextNode()); ) {
      const parent = node.parentElement;
      if (!node.data.trim() || !parent.checkVisibility({ visibilityProperty: true }) || parent.closest(".unseen")) continue;
      const range = document.createRange();
      range.selectNodeContents(node);
      const boxes = [...range.getClientRects()].filter(box => box.width > 0 && box.height > 0);
      if (boxes.length) found.push({ node, parent, boxes, name: node.data.trim().slice(0, 60) });
    }
    return found;
  },
  // The elements for which something holds, each by the beginning of its HTML.
  those(selector, condition) {
    return [...document.querySelectorAll(selector)].filter(condition).map(each => each.outerHTML.slice(0, 80));
  },
  scrolls(style) {
    return style === "auto" || style === "scroll";
  },
  scrollingSideways() {
    return this.those("body *:not(.scroll)", each =>
      each.scrollWidth > each.clientWidth + 1 && this.scrolls(getComputedStyle(each).overflowX));
  },
  scrolling() {
    return this.those("body *", each => each.scrollHeight > each.clientHeight + 1 && this.scrolls(getComputedStyle(each).overflowY));
  },
  beyond(width) {
    return this.those("body *", each => each.getBoundingClientRect().right > width + 1);
  },
  sortMarks() {
    return this.those("th:not([aria-sort]) button", each => getComputedStyle(each, "::after").content !== "none");
  },
  // Coloured areas that a printer would leave blank.
  lostColours() {
    return this.those(".bar, .bar div, .chip, .heat td, .key", each =>
      ["", "::before"].every(part => getComputedStyle(each, part).printColorAdjust !== "exact"));
  },
  clips(element) {
    return getComputedStyle(element).overflow !== "visible" && !(element instanceof SVGElement);
  },
  // Texts that leave the box they belong to, unless it scrolls, and texts cut short without a title to tell the rest.
  outside() {
    const found = [];
    for (const { parent, boxes, name } of this.texts()) {
      const home = parent.closest("td, th, .tag, .card, figure, h1, h2, p, dialog") ?? document.body;
      const cut = this.clips(parent) && (parent.scrollWidth > parent.clientWidth + 1 || parent.scrollHeight > parent.clientHeight + 1);
      if (cut) {
        const whole = parent.closest("[title]")?.title ?? "";
        if (!whole.includes(parent.textContent.trim())) found.push(`cut: ${name}`);
        if (getComputedStyle(parent).textOverflow !== "ellipsis") found.push(`cut without a sign: ${name}`);
        continue;
      }
      const room = home.getBoundingClientRect();
      for (const box of boxes)
        if (box.left < room.left - 1 || box.right > room.right + 1 || box.top < room.top - 2 || box.bottom > room.bottom + 2)
          if (!home.matches(".scroll, .scroll *") || home.matches("td, th")) found.push(`outside of ${home.tagName}.${home.className}: ${name}`);
    }
    return found;
  },
  // Pairs of texts that lie on one another, as far as both are seen.
  overlapping() {
    const seen = [];
    for (const { node, parent, boxes, name } of this.texts()) {
      const windows = [];
      for (let each = parent; each !== document.body; each = each.parentElement)
        if (this.clips(each)) windows.push(each.getBoundingClientRect());
      for (const box of boxes) {
        const part = windows.reduce((a, b) => ({
          left: Math.max(a.left, b.left), right: Math.min(a.right, b.right),
          top: Math.max(a.top, b.top), bottom: Math.min(a.bottom, b.bottom),
        }), box);
        const ink = (part.bottom - part.top) * 0.2;  // a line's box is taller than its letters
        if (part.right - part.left > 1 && part.bottom - part.top > 1)
          seen.push({ node, name, left: part.left, right: part.right, top: part.top + ink, bottom: part.bottom - ink });
      }
    }
    const found = [];
    seen.forEach((a, index) => {
      for (const b of seen.slice(index + 1))
        if (a.node !== b.node && Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1 && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 1)
          found.push(`${a.name} / ${b.name}`);
    });
    return found;
  },
  canvas: (() => {
    const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
    canvas.canvas.width = canvas.canvas.height = 1;
    return canvas;
  })(),
  // WCAG 2.2's relative luminance of colours laid over one another, on white.
  luminance(colours) {
    this.canvas.fillStyle = "#fff";
    this.canvas.fillRect(0, 0, 1, 1);
    for (const colour of colours) {
      this.canvas.fillStyle = colour;
      this.canvas.fillRect(0, 0, 1, 1);
    }
    const [r, g, b] = [...this.canvas.getImageData(0, 0, 1, 1).data].map(value => {
      const part = value / 255;
      return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  },
  // Of a colour before what lies behind the element, itself included.
  contrast(element, colour) {
    const behind = [];
    for (let each = element; each; each = each.parentElement) behind.unshift(getComputedStyle(each).backgroundColor);
    const [low, high] = [this.luminance(behind), this.luminance([...behind, colour])].sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
  },
  faintTexts(least) {
    const found = {};
    for (const { parent, name } of this.texts()) {
      const style = getComputedStyle(parent);
      const value = this.contrast(parent, parent instanceof SVGElement ? style.fill : style.color);
      if (value < least) found[`${parent.tagName}.${parent.getAttribute("class")} ${name}`] = value;
    }
    return found;
  },
  faintLines(least) {
    const found = {};
    for (const line of document.querySelectorAll(".plot .line:not(.thin)")) {
      const value = this.contrast(line, getComputedStyle(line).stroke);
      if (value < least) found[line.getAttribute("class")] = value;
    }
    return found;
  },
  // The faintest text of the heat tables at every shade, of both tones.
  faintestShade() {
    const cell = document.querySelector(".heat td[style]");
    cell.textContent = "50";
    let least = 21;
    for (const hit of [true, false])
      for (let shade = 0; shade <= 100; shade++) {
        cell.classList.toggle("hit", hit);
        cell.style.setProperty("--shade", `${shade}%`);
        least = Math.min(least, this.contrast(cell, getComputedStyle(cell).color));
      }
    return least;
  },
})
