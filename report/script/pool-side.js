// One side of the pool view: an arm's pool as a grid of cells, its shares, and the text beneath it.
class PoolSide {
  static SHARES = ["tokens", "reserved", "internal", "external"];
  static HUES = { // neighbours differ in lightness as well as in hue
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
    this.slots = null;
  }

  // Index of the step that holds at `ms`; -1 before the first, t.length after the end.
  at(ms) {
    const { t, end } = this.part;
    if (ms >= end && end > 0) return t.length;
    let low = 0, high = t.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (t[middle] <= ms + 1e-6) low = middle + 1; else high = middle; // a time of a step has been divided and multiplied
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
    this.draw(held, force);
    const slots = poolData.shares(this.part, held);
    this.held = PoolSide.SHARES.map((name) => slots[name] / this.part.pool);
    this.held.forEach((share, i) => { this.bars[i].style.width = `${100 * share}%`; });
  }

  // The numbers of the step that is shown. To lay out text takes longer than to draw a step.
  write() {
    const { frame } = this, inside = frame >= 0 && frame < this.part.t.length;
    this.held.forEach((share, i) => page.tell(this.numbers[i], this.look.percent(share)));
    const text = page.words[page.language].script;
    if (inside) {
      const waiting = this.part.waitingAt[frame], preempted = this.part.preemptedAt[frame];
      page.tell(this.status, page.fill(text.status, { running: this.part.frames[frame].length, waiting }) + (preempted ? page.fill(text.preempted, { preempted }) : ""));
    } else {
      page.tell(this.status, frame < 0 ? text.before : page.fill(text.done, { t: this.look.seconds(this.part.end) }));
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

  // What each slot holds: 0 nothing, else 4 × its request + 1 where it stores a token, 2 where it will, 3 where it never does.
  map(held) {
    const { part } = this, slots = this.spare?.length === part.pool ? this.spare.fill(0) : new Uint32Array(part.pool);
    held.forEach(([request, stored, had], i) => {
      const charged = part.charge(request, had), filled = Math.max(stored, Math.min(charged, part.final[request]));
      [[0, stored], [stored, filled], [filled, charged]].forEach(([from, limit], kind) => {
        for (let k = Math.floor(from / part.unit); k < this.placed[i].length && k * part.unit < limit; k += 1) {
          const first = (this.placed[i][k] - k) * part.unit;
          slots.fill(4 * request + kind + 1, first + Math.max(from, k * part.unit), first + Math.min(limit, (k + 1) * part.unit));
        }
      });
    });
    return slots;
  }

  // Only cells that changed since the step before are drawn again; `whole`: all of them.
  draw(held, whole) {
    const { cell, part } = this, was = this.slots?.length === part.pool && !whole ? this.slots : null, slots = this.map(held);
    const changed = (from) => {
      for (let at = from; at < from + cell && at < part.pool; at += 1) if (slots[at] !== was[at]) return true;
      return false;
    };
    if (!was) this.pen.clearRect(0, 0, this.canvas.width, this.canvas.height);
    for (let from = 0; from < part.pool; from += cell) {
      if (was && !changed(from)) continue;
      let to = from + cell;
      while (to < part.pool && (!was || changed(to))) to += cell;
      this.paint(slots, from, Math.min(to, part.pool));
      from = to;
    }
    [this.slots, this.spare] = [slots, this.slots];
  }

  // The slots from `from` to `to`, whole cells.
  paint(slots, from, to) {
    const { pen, cell, columns, wide, high, gap, look } = this;
    pen.fillStyle = look.free;
    this.fill(from, to);
    if (gap) { // a free cell is an outline
      pen.fillStyle = look.paper;
      const line = Math.max(1, gap / 2);
      for (let at = from / cell; at * cell < to; at += 1) {
        const x = at % columns, y = Math.floor(at / columns), share = Math.min(1, to / cell - at);
        const left = Math.round(x * wide) + line, top = Math.round(y * high) + line;
        const width = (Math.round((x + 1) * wide) - gap - Math.round(x * wide)) * share - 2 * line;
        pen.fillRect(left, top, Math.max(0, width), Math.round((y + 1) * high) - gap - line - top);
      }
    }
    for (let at = from, end; at < to; at = end) {
      end = at + 1;
      while (end < to && slots[end] === slots[at]) end += 1;
      if (!slots[at]) continue;
      const request = slots[at] >> 2, kind = slots[at] & 3, faded = look.followed !== null && look.followed !== request;
      const alpha = [1, 0.34, 0.7][kind - 1] * (faded ? 0.18 : 1);
      if (alpha < 1) {
        pen.fillStyle = look.paper;
        this.fill(at, end);
      }
      pen.globalAlpha = alpha;
      pen.fillStyle = kind === 3 ? this.hatch(this.colour(request)) : this.colour(request);
      this.fill(at, end);
      pen.globalAlpha = 1;
    }
  }

  // The request under a point of the canvas; null where none holds that slot.
  requestAt(x, y) {
    const { part, frame } = this;
    if (frame < 0 || frame >= part.t.length) return null;
    const column = Math.min(this.columns - 1, Math.max(0, Math.floor((x / this.canvas.clientWidth) * this.columns)));
    const slot = (Math.floor((y / this.canvas.clientHeight) * this.rows) * this.columns + column) * this.cell;
    const held = this.slots.subarray(Math.max(0, slot), slot + this.cell).find((code) => code);
    return held === undefined ? null : held >> 2;
  }

  follow(request) {
    const { part, frame } = this, text = page.words[page.language].script;
    const found = frame >= 0 && frame < part.t.length ? part.frames[frame].find((one) => one[0] === request) : null;
    if (!found) return `${this.select.value}: ${page.fill(part.when.has(request) ? text.waiting_for : text.never, { id: request })}`;
    const held = part.charge(request, found[2]);
    return `${this.select.value}: ${page.fill(text.request, { id: request, tokens: found[1], slots: held, filled: Math.min(held, part.final[request]) })}`;
  }
}
