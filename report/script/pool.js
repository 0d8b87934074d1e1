// The pool view: recorded steps of two arms, drawn block by block. Every number it shows comes from the step it shows.
(() => {
  const view = document.getElementById("pool-view");
  if (!view) return;
  const all = JSON.parse(document.getElementById("pool-data").textContent);
  const get = (id) => document.getElementById(id);
  const SHARES = ["tokens", "reserved", "internal", "external"];
  const USUAL_CELL = 16, LARGEST_CELL = 128;
  const PLAY_MS = 14000; // from start to end, however long the run took
  const HUES = { // told apart by neighbours in lightness as well as in hue
    light: ["#0072b2", "#d55e00", "#009e73", "#aa3377", "#b8860b", "#4b4bc8", "#c2185b", "#00838f", "#7a5c00", "#5d8a00"],
    dark: ["#56b4e9", "#ff8c42", "#2fcf9f", "#e88ac0", "#f0c94a", "#9d9dff", "#ff6f9f", "#4dd0e1", "#d8b26e", "#a5d63f"],
  };
  const still = matchMedia("(prefers-reduced-motion: reduce)");

  // --- from the page's data to frames: [request, tokens stored, slots] of every request that holds cache -----------
  const unrun = (list) => list.flatMap((_, i) => (i % 2 ? [] : Array(list[i + 1]).fill(list[i])));

  function decode(part) {
    if (part.frames) return part;
    part.frames = part.t.map(() => []);
    for (const [request, first, off, extra] of part.held) {
      const more = unrun(extra);
      let stored = 0;
      unrun(off).forEach((value, k) => {
        const f = first + k;
        stored = k ? stored + value + part.step[f] - part.step[f - 1] : value;
        part.frames[f].push([request, stored, Math.ceil(stored / part.block) * part.block + more[k]]);
      });
    }
    part.waitingAt = unrun(part.waiting);
    part.preemptedAt = unrun(part.preempted);
    part.unit = part.reserve || part.block;
    place(part);
    return part;
  }

  // The logs count a request's blocks and do not say where they lie: each new one takes the first free place.
  function place(part) {
    const taken = [], of = new Map(); // request → its places, in the order of its tokens
    part.places = part.frames.map((frame) => {
      const here = new Set(frame.map((one) => one[0]));
      for (const [request, places] of of) {
        if (here.has(request)) continue;
        for (const at of places) taken[at] = false;
        of.delete(request);
      }
      const wanted = frame.map(([request, , slots]) => [request, Math.ceil(Math.max(slots, part.reserve) / part.unit)]);
      for (const [request, count] of wanted) {
        const places = of.get(request) || [];
        while (places.length > count) taken[places.pop()] = false;
        of.set(request, places);
      }
      let free = 0;
      for (const [request, count] of wanted) {
        const places = of.get(request);
        while (places.length < count) {
          while (taken[free]) free += 1;
          taken[free] = true;
          places.push(free);
        }
      }
      return wanted.map(([request]) => of.get(request).slice());
    });
  }

  // A colour for each request, the same on both sides; requests that hold cache together differ as far as colours last.
  function paint(parts) {
    const count = HUES.light.length, chosen = new Map();
    for (const part of parts) {
      for (const frame of part.frames) {
        const new_ = frame.filter(([request]) => !chosen.has(request));
        if (!new_.length) continue;
        const used = Array(count).fill(0);
        for (const [request] of frame) if (chosen.has(request)) used[chosen.get(request)] += 1;
        for (const [request] of new_) {
          let best = request % count;
          for (let k = 0; k < count; k += 1) {
            const hue = (request + k) % count;
            if (used[hue] < used[best]) best = hue;
          }
          used[best] += 1;
          chosen.set(request, best);
        }
      }
    }
    return chosen;
  }

  // The four shares of the pool, by the rules of accounting.py.
  function shares(part, frame) {
    let tokens = 0, filled = 0, charged = 0;
    for (const [request, stored, slots] of frame) {
      const held = Math.max(slots, part.reserve);
      tokens += stored;
      charged += held;
      filled += Math.min(held, part.final[request]);
    }
    return { tokens, reserved: filled - tokens, internal: charged - filled, external: part.pool - charged };
  }

  // --- one side ----------------------------------------------------------------------------------------------------
  class Side {
    constructor(element) {
      this.element = element;
      this.canvas = element.querySelector("canvas");
      this.box = element.querySelector(".pool-box");
      this.select = element.querySelector("select");
      this.bars = [...element.querySelectorAll(".pool-bar span")];
      this.numbers = [...element.querySelectorAll(".pool-shares dd")];
      this.status = element.querySelector(".pool-status");
      this.what = element.querySelector(".pool-what");
      this.frame = -2;
    }

    use(part, columns, rows, cell) {
      Object.assign(this, { part: decode(part), columns, rows, cell, frame: -2, patterns: new Map() });
      this.box.style.aspectRatio = `${columns}/${rows}`;
      this.resize();
    }

    resize() {
      const width = this.box.clientWidth, ratio = devicePixelRatio || 1;
      this.size = Math.floor((width * ratio) / this.columns);
      this.canvas.width = this.size * this.columns;
      this.canvas.height = this.size * this.rows;
      this.canvas.style.width = `${this.canvas.width / ratio}px`;
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
      this.element.dataset.step = inside ? this.part.step[frame] : "";
      this.draw(held, inside ? this.part.places[frame] : []);
      const slots = shares(this.part, held);
      SHARES.forEach((name, i) => {
        const share = slots[name] / this.part.pool;
        this.bars[i].style.width = `${100 * share}%`;
        this.numbers[i].textContent = per.cent(share);
      });
      const text = words();
      if (inside) {
        const waiting = this.part.waitingAt[frame], preempted = this.part.preemptedAt[frame];
        this.status.textContent = page.fill(text.status, { running: held.length, waiting })
          + (preempted ? page.fill(text.preempted, { preempted }) : "");
      } else {
        this.status.textContent = frame < 0 ? text.before : page.fill(text.done, { t: per.seconds(this.part.end) });
      }
    }

    say() {
      const listed = SHARES.map((name, i) => page.fill(words().share, { name: page.words[page.language].shares[name], value: this.numbers[i].textContent }));
      return page.fill(words().label, { arm: this.select.value, status: this.status.textContent, shares: listed.join(", ") });
    }

    colour(request) {
      return HUES[ink.dark ? "dark" : "light"][hues.get(request)];
    }

    hatch(context, colour) {
      if (!this.patterns.has(colour)) {
        const tile = document.createElement("canvas");
        const step = Math.max(4, Math.round(this.size / 4));
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
        this.patterns.set(colour, context.createPattern(tile, "repeat"));
      }
      return this.patterns.get(colour);
    }

    draw(held, places) {
      const context = this.canvas.getContext("2d"), { size, columns, cell } = this;
      const gap = size > 14 ? 2 : size > 6 ? 1 : 0, slots = this.part.pool;
      context.clearRect(0, 0, this.canvas.width, this.canvas.height);
      context.fillStyle = ink.free;
      for (let at = 0; at * cell < slots; at += 1) {
        const part = Math.min(1, (slots - at * cell) / cell);
        context.fillRect((at % columns) * size, Math.floor(at / columns) * size, (size - gap) * part, size - gap);
      }
      // A stretch of slots, cell by cell; a cell fills from left to right.
      const fill = (start, end) => {
        for (let at = Math.floor(start / cell); at * cell < end; at += 1) {
          const from = Math.max(0, start - at * cell) / cell, to = Math.min(cell, end - at * cell) / cell;
          const x = (at % columns) * size, y = Math.floor(at / columns) * size;
          context.fillRect(x + (size - gap) * from, y, (size - gap) * (to - from), size - gap);
        }
      };
      held.forEach(([request, stored, had], i) => {
        const charged = Math.max(had, this.part.reserve), filled = Math.min(charged, this.part.final[request]);
        const colour = this.colour(request), faded = followed !== null && followed !== request;
        places[i].forEach((place, k) => {
          const first = place * this.part.unit, from = k * this.part.unit;
          const to = (limit) => first + Math.min(this.part.unit, Math.max(0, limit - from));
          const ends = [to(stored), to(filled), to(charged)];
          const styles = [[colour, 1], [colour, 0.3], [this.hatch(context, colour), 0.62]];
          let start = first;
          styles.forEach(([style, alpha], s) => {
            if (ends[s] > start) {
              context.globalAlpha = faded ? alpha * 0.16 : alpha;
              context.fillStyle = style;
              fill(start, ends[s]);
              start = ends[s];
            }
          });
          context.globalAlpha = 1;
        });
      });
    }

    // The request under a point of the canvas; null where none holds that slot.
    requestAt(x, y) {
      const column = Math.floor(x / (this.canvas.clientWidth / this.columns));
      const slot = (Math.floor(y / (this.canvas.clientHeight / this.rows)) * this.columns + column) * this.cell;
      const { part, frame } = this;
      if (frame < 0 || frame >= part.t.length) return null;
      const found = part.places[frame].findIndex((places) => places.some((place) => slot >= place * part.unit - this.cell + 1 && slot < (place + 1) * part.unit));
      return found < 0 ? null : part.frames[frame][found][0];
    }

    follow(request) {
      const { part, frame } = this;
      const found = frame >= 0 && frame < part.t.length ? part.frames[frame].find((one) => one[0] === request) : null;
      if (!found) return `${this.select.value}: ${page.fill(words().waiting_for, { id: request })}`;
      const held = Math.max(found[2], part.reserve);
      return `${this.select.value}: ${page.fill(words().request, { id: request, tokens: found[1], slots: held, filled: Math.min(held, part.final[request]) })}`;
    }
  }

  // --- the whole view ----------------------------------------------------------------------------------------------
  const words = () => page.words[page.language].script;
  const per = {
    cent: (share) => new Intl.NumberFormat(page.root.lang, { style: "percent", minimumFractionDigits: 1, maximumFractionDigits: 1, roundingMode: "halfEven" }).format(share),
    seconds: (ms) => new Intl.NumberFormat(page.root.lang, { minimumFractionDigits: 2, maximumFractionDigits: 2 }).format(ms / 1000),
  };
  let hues = new Map();
  const ink = { dark: false, free: "#eee" };
  const sides = [...view.querySelectorAll(".pool")].map((element) => new Side(element));
  const slider = get("pool-slider"), play = get("pool-play"), follow = get("pool-follow"), workload = get("pool-workload");
  const MOST = Number(slider.max);
  let followed = null, pinned = null, position = 0, playing = false, last = 0;
  const own = () => view.querySelector("[name=pool-clock]:checked").value === "own";
  const longest = () => Math.max(...sides.map((side) => side.part.end));
  const clock = (side) => position * (own() ? side.part.end : longest());

  function readInk() {
    const style = getComputedStyle(page.root);
    ink.free = style.getPropertyValue("--cell").trim();
    ink.dark = style.getPropertyValue("--theme").trim() === "dark";
  }

  function choose() {
    const { arms } = all[workload.value];
    const parts = sides.map((side) => arms[side.select.value]);
    const part = parts.every((one) => one.all) ? "all" : "cut";
    const used = parts.map((one) => one[part] || Object.values(one)[0]);
    const units = used.map((one) => one.reserve || one.block).filter((unit) => unit > 1 && unit <= LARGEST_CELL);
    const cell = units.length ? Math.min(...units) : USUAL_CELL;
    const cells = Math.max(...used.map((one) => one.pool / cell), 1);
    const columns = 2 ** Math.ceil(Math.log2(Math.sqrt(cells)));
    sides.forEach((side, i) => {
      side.use(used[i], columns, Math.ceil(cells / columns), cell);
      side.what.replaceChildren(...armName(side.select.value));
    });
    hues = paint([...used].reverse()); // the paged side first: more requests meet there
    const ids = [...new Set(used.flatMap((one) => one.held.map((stretch) => stretch[0])))].sort((a, b) => a - b);
    follow.replaceChildren(follow.options[0], ...ids.map((id) => new Option(String(id), String(id))));
    follow.value = "";
    pinned = followed = null;
  }

  function armName(arm) {
    const found = page.words;
    return Object.keys(found).map((language) => {
      const span = document.createElement("span");
      span.className = language;
      span.lang = language === "zh" ? "zh-Hans" : language;
      span.textContent = found[language].arms[arm] || arm;
      return span;
    });
  }

  function show(force) {
    for (const side of sides) side.show(side.at(clock(side)), force);
    slider.value = Math.round(position * MOST);
    const text = own() ? `${Math.round(position * 100)}%` : page.fill(words().at, { t: per.seconds(position * longest()) });
    if (get("pool-time").textContent !== text) get("pool-time").textContent = text;
    get("pool-hint").hidden = followed !== null;
    get("pool-request").textContent = followed === null ? "" : sides.map((side) => side.follow(followed)).join(" · ");
    if (!playing) describe();
  }

  // For those who can't see it: what both sides hold, once the picture stands still.
  function describe() {
    const [left, right] = sides.map((side) => side.say());
    const value = page.fill(words().value, { t: per.seconds(position * longest()), left, right });
    slider.setAttribute("aria-valuetext", value);
    sides.forEach((side) => side.canvas.setAttribute("aria-label", side.say()));
    get("pool-live").textContent = document.activeElement === slider ? "" : value;
  }

  function step(direction) {
    stop();
    const times = sides.flatMap((side) => [...side.part.t, side.part.end].map((ms) => ms / (own() ? side.part.end : longest())));
    const near = 1e-9, ordered = times.sort((a, b) => a - b);
    const next = direction > 0 ? ordered.find((time) => time > position + near) : ordered.findLast((time) => time < position - near);
    position = Math.min(1, Math.max(0, next ?? (direction > 0 ? 1 : 0)));
    show();
  }

  function run(now) {
    if (!playing) return;
    const passed = last ? now - last : 0;
    // Reduced motion: a picture at a time instead of a film.
    if (!still.matches || passed >= 700 || !last) {
      position = Math.min(1, position + (still.matches ? 1 / 24 : passed / PLAY_MS));
      last = now;
      if (position >= 1) stop();
      show();
    }
    requestAnimationFrame(run);
  }

  function stop() {
    playing = false;
    play.setAttribute("aria-pressed", "false");
  }

  play.addEventListener("click", () => {
    if (playing) {
      stop();
      describe();
      return;
    }
    if (position >= 1) position = 0;
    playing = true;
    last = 0;
    play.setAttribute("aria-pressed", "true");
    requestAnimationFrame(run);
  });
  slider.addEventListener("input", () => { stop(); position = slider.value / MOST; show(); });
  get("pool-back").addEventListener("click", () => step(-1));
  get("pool-forward").addEventListener("click", () => step(1));
  follow.addEventListener("change", () => { pinned = followed = follow.value === "" ? null : Number(follow.value); show(true); });
  workload.addEventListener("change", () => { open(); });
  for (const input of view.querySelectorAll("[name=pool-clock]")) input.addEventListener("change", () => show(true));
  for (const side of sides) {
    side.select.addEventListener("change", () => { choose(); show(true); });
    const point = (event) => {
      const over = event ? side.requestAt(event.offsetX, event.offsetY) : null;
      const next = over === null ? pinned : over;
      if (next !== followed) { followed = next; show(true); }
    };
    side.canvas.addEventListener("pointermove", point);
    side.canvas.addEventListener("pointerleave", () => point(null));
    side.canvas.addEventListener("click", (event) => {
      const over = side.requestAt(event.offsetX, event.offsetY);
      pinned = over === pinned ? null : over;
      follow.value = pinned === null ? "" : String(pinned);
      followed = pinned;
      show(true);
    });
  }

  function open() {
    stop();
    const { pair, arms } = all[workload.value];
    sides.forEach((side, i) => {
      side.select.replaceChildren(...Object.keys(arms).map((arm) => new Option(arm, arm)));
      side.select.value = pair[i];
    });
    choose();
    // Opened where the paged pool is fullest. Very unequal ends leave nothing to see on one clock.
    const ends = sides.map((side) => side.part.end);
    view.querySelector(`[name=pool-clock][value=${Math.max(...ends) > 8 * Math.min(...ends) ? "own" : "same"}]`).checked = true;
    const right = sides[1].part;
    const held = right.frames.map((frame) => frame.reduce((sum, one) => sum + one[1], 0));
    position = right.t[held.indexOf(Math.max(...held))] / (own() ? right.end : longest());
    show(true);
  }

  readInk();
  open();
  let width = view.clientWidth;
  new ResizeObserver(() => {
    if (view.clientWidth === width) return;
    width = view.clientWidth;
    sides.forEach((side) => side.resize());
    show(true);
  }).observe(view);
  document.addEventListener("kvlab:theme", () => { readInk(); sides.forEach((side) => { side.patterns = new Map(); }); show(true); });
  document.addEventListener("kvlab:language", () => show(true));
})();
