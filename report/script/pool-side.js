// One side of the pool view: an arm's pool as a grid of cells, its shares, and the text beneath it.
class PoolSide {
  static SHARES = ["tokens", "reserved", "internal", "external"];
  static HUES = { // told apart by neighbours in lightness as well as in hue
    light: ["#0072b2", "#d55e00", "#009e73", "#aa3377", "#b8860b", "#4b4bc8", "#c2185b", "#00838f", "#7a5c00", "#5d8a00"],
    dark: ["#56b4e9", "#ff8c42", "#2fcf9f", "#e88ac0", "#f0c94a", "#9d9dff", "#ff6f9f", "#4dd0e1", "#d8b26e", "#a5d63f"],
  };

  // `look`: what both sides share: the theme's colours, the requests' hues, the order, the request that is followed.
  constructor(element, look) {
    this.element = element;
    this.look = look;
    this.canvas = element.querySelector("canvas");
    this.pen = this.canvas.getContext("2d");
    this.box = element.querySelector(".pool-box");
    this.select = element.querySelector("select");
    this.bars = page.all(".pool-bar span", element);
    this.numbers = page.all(".pool-shares dd", element);
    this.status = element.querySelector(".pool-status");
    this.what = element.querySelector(".pool-what");
    this.frame = -2;
  }

  use(part, columns, rows, cell) {
    Object.assign(this, { part: poolData.decode(part), columns, rows, cell });
    this.resize();
  }

  // The canvas covers whole device pixels, and so do a cell's edges.
  resize() {
    const ratio = devicePixelRatio || 1, { width, height } = this.box.getBoundingClientRect();
    this.canvas.width = Math.max(1, Math.round(width * ratio));
    this.canvas.height = Math.max(1, Math.round(height * ratio));
    this.wide = this.canvas.width / this.columns;
    this.high = this.canvas.height / this.rows;
    this.gap = Math.min(this.wide, this.high) > 14 * ratio ? 2 * ratio : Math.min(this.wide, this.high) > 5 * ratio ? ratio : 0;
    this.patterns = new Map();
    this.frame = -2;
  }

  // Index of the step that holds at `ms`; -1 before the first, t.length after the end.
  at(ms) {
    const { t, end } = this.part;
    if (ms >= end && end > 0) return t.length;
    let low = 0, high = t.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (t[middle] <= ms) low = middle + 1; else high = middle;
    }
    return low - 1;
  }

  show(frame, force) {
    if (frame === this.frame && !force) return;
    this.frame = frame;
    const inside = frame >= 0 && frame < this.part.t.length;
    const held = inside ? this.part.frames[frame] : [];
    this.placed = !inside ? [] : this.look.grouped ? poolData.grouped(this.part, frame) : this.part.places[frame];
    this.element.dataset.step = inside ? this.part.step[frame] : "";
    this.draw(held);
    const slots = poolData.shares(this.part, held);
    PoolSide.SHARES.forEach((name, i) => {
      const share = slots[name] / this.part.pool;
      this.bars[i].style.width = `${100 * share}%`;
      this.numbers[i].textContent = this.look.percent(share);
    });
    const text = page.words[page.language].script;
    if (inside) {
      const waiting = this.part.waitingAt[frame], preempted = this.part.preemptedAt[frame];
      this.status.textContent = page.fill(text.status, { running: held.length, waiting })
        + (preempted ? page.fill(text.preempted, { preempted }) : "");
    } else {
      this.status.textContent = frame < 0 ? text.before : page.fill(text.done, { t: this.look.seconds(this.part.end) });
    }
  }

  say() {
    const { script, shares } = page.words[page.language];
    const listed = PoolSide.SHARES.map((name, i) => page.fill(script.share, { name: shares[name], value: this.numbers[i].textContent }));
    return page.fill(script.label, { arm: this.select.value, status: this.status.textContent, shares: listed.join(", ") });
  }

  colour(request) {
    return PoolSide.HUES[this.look.dark ? "dark" : "light"][this.look.hues.get(request)];
  }

  hatch(colour) {
    if (!this.patterns.has(colour)) {
      const tile = document.createElement("canvas"), step = Math.max(4, Math.round(this.high / 3));
      tile.width = tile.height = step;
      const pen = tile.getContext("2d");
      pen.strokeStyle = colour;
      pen.lineWidth = Math.max(1, step / 6);
      pen.beginPath();
      for (const shift of [-step, 0, step]) {
        pen.moveTo(shift, step);
        pen.lineTo(shift + step, 0);
      }
      pen.stroke();
      this.patterns.set(colour, this.pen.createPattern(tile, "repeat"));
    }
    return this.patterns.get(colour);
  }

  // A stretch of slots: a rectangle a row where cells touch, else one a cell; a cell fills from left to right.
  fill(start, end) {
    const { pen, columns, cell, wide, high, gap } = this, row = columns * cell;
    const step = gap ? cell : row;
    for (let at = Math.floor(start / step) * step; at < end; at += step) {
      const y = Math.floor(at / row), from = Math.max(start, at) - y * row, to = Math.min(end, at + step) - y * row;
      const top = Math.round(y * high), bottom = Math.round((y + 1) * high) - gap;
      let left = Math.round((from / cell) * wide), right = Math.round((to / cell) * wide);
      if (gap) {
        const first = Math.round(Math.floor(from / cell) * wide), width = Math.round((Math.floor(from / cell) + 1) * wide) - gap - first;
        left = first + (width * (from % cell)) / cell;
        right = first + (width * (to - Math.floor(from / cell) * cell)) / cell;
      }
      pen.fillRect(left, top, right - left, bottom - top);
    }
  }

  draw(held) {
    const { pen, part, look } = this;
    pen.clearRect(0, 0, this.canvas.width, this.canvas.height);
    pen.fillStyle = look.free;
    this.fill(0, part.pool);
    if (this.gap) { // a free cell is an outline
      pen.fillStyle = look.paper;
      const line = Math.max(1, this.gap / 2);
      for (let at = 0; at * this.cell < part.pool; at += 1) {
        const x = at % this.columns, y = Math.floor(at / this.columns), share = Math.min(1, part.pool / this.cell - at);
        const left = Math.round(x * this.wide) + line, top = Math.round(y * this.high) + line;
        const width = (Math.round((x + 1) * this.wide) - this.gap - Math.round(x * this.wide)) * share - 2 * line;
        pen.fillRect(left, top, Math.max(0, width), Math.round((y + 1) * this.high) - this.gap - line - top);
      }
    }
    held.forEach(([request, stored, had], i) => {
      const charged = Math.max(had, part.reserve), filled = Math.min(charged, part.final[request]);
      const colour = this.colour(request), faded = look.followed !== null && look.followed !== request;
      const places = this.placed[i];
      const spans = [[0, stored, colour, 1], [stored, filled, colour, 0.34], [Math.max(stored, filled), charged, this.hatch(colour), 0.7]];
      for (const [from, limit, style, alpha] of spans) {
        if (limit <= from) continue;
        for (let k = Math.floor(from / part.unit); k < places.length && k * part.unit < limit; k += 1) {
          let last = k; // neighbours in one go
          while (last + 1 < places.length && (last + 1) * part.unit < limit && places[last + 1] === places[last] + 1) last += 1;
          const begin = places[k] * part.unit + Math.max(0, from - k * part.unit);
          const end = places[last] * part.unit + Math.min(part.unit, limit - last * part.unit);
          if (alpha < 1 || faded) {
            pen.globalAlpha = 1;
            pen.fillStyle = look.paper;
            this.fill(begin, end);
          }
          pen.globalAlpha = faded ? alpha * 0.18 : alpha;
          pen.fillStyle = style;
          this.fill(begin, end);
          k = last;
        }
      }
      pen.globalAlpha = 1;
    });
  }

  // The request under a point of the canvas; null where none holds that slot.
  requestAt(x, y) {
    const { part, frame } = this;
    if (frame < 0 || frame >= part.t.length) return null;
    const column = Math.min(this.columns - 1, Math.max(0, Math.floor((x / this.canvas.clientWidth) * this.columns)));
    const slot = (Math.floor((y / this.canvas.clientHeight) * this.rows) * this.columns + column) * this.cell;
    const found = this.placed.findIndex((places) => places.some((place) => slot > place * part.unit - this.cell && slot < (place + 1) * part.unit));
    return found < 0 ? null : part.frames[frame][found][0];
  }

  follow(request) {
    const { part, frame } = this, text = page.words[page.language].script;
    const found = frame >= 0 && frame < part.t.length ? part.frames[frame].find((one) => one[0] === request) : null;
    if (!found) return `${this.select.value}: ${page.fill(part.when.has(request) ? text.waiting_for : text.never, { id: request })}`;
    const held = Math.max(found[2], part.reserve);
    return `${this.select.value}: ${page.fill(text.request, { id: request, tokens: found[1], slots: held, filled: Math.min(held, part.final[request]) })}`;
  }
}
