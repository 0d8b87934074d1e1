// The pool view: recorded steps of two arms, drawn block by block. Every number it shows comes from the step it shows.
(() => {
  const view = document.getElementById("pool-view");
  if (!view) return;
  const all = JSON.parse(document.getElementById("pool-data").textContent);
  const get = (id) => document.getElementById(id);
  const USUAL_CELL = 16, LARGEST_CELL = 128;
  const PLAY_MS = 14000; // from start to end, however long the run took
  const WORDS_MS = 100; // while it plays, numbers are written ten times a second
  const still = matchMedia("(prefers-reduced-motion: reduce)"), narrow = matchMedia("(max-width: 40rem)");
  const words = () => page.words[page.language].script;
  const formats = new Map(); // of each language; to make one takes longer than to draw a step
  const number = (name, options) => {
    const key = `${name} ${page.root.lang}`;
    if (!formats.has(key)) formats.set(key, new Intl.NumberFormat(page.root.lang, options));
    return formats.get(key);
  };
  const look = {
    dark: false, free: "#888", paper: "#fff", hues: new Map(), grouped: false, followed: null,
    percent: (share) => number("percent", { style: "percent", minimumFractionDigits: 1, maximumFractionDigits: 1, roundingMode: "halfEven" }).format(share),
    seconds: (ms) => number("seconds", { minimumFractionDigits: 2, maximumFractionDigits: 2 }).format(ms / 1000),
  };
  const sides = page.all(".pool", view).map((element) => new PoolSide(element, look));
  const slider = get("pool-slider"), play = get("pool-play"), follow = get("pool-follow"), workload = get("pool-workload");
  const MOST = Number(slider.max);
  let opened = null, pinned = null, position = 0, playing = false, last = 0, written = 0;
  const chosen = (name) => view.querySelector(`[name=${name}]:checked`).value;
  const own = () => chosen("pool-clock") === "own";
  const longest = () => Math.max(...sides.map((side) => side.part.end));
  const clock = (side) => position * (own() ? side.part.end : longest());

  function readInk() {
    const style = getComputedStyle(page.root);
    look.free = style.getPropertyValue("--edge").trim();
    look.paper = style.getPropertyValue("--bg").trim();
    look.dark = style.getPropertyValue("--theme").trim() === "dark";
  }

  // The rule of pool_view.py: about square, twice as high as wide where cells are small; on a phone half the columns.
  function lay() {
    const parts = sides.map((side) => side.used);
    const units = parts.map((one) => one.reserve || one.block).filter((unit) => unit > 1 && unit <= LARGEST_CELL);
    const cell = units.length ? Math.min(...units) : USUAL_CELL;
    const cells = Math.max(...parts.map((one) => one.pool / cell), 1);
    let columns = 2 ** Math.ceil(Math.log2(Math.sqrt(cells)));
    const small = columns >= 64;
    if (small && narrow.matches) columns /= 2;
    const rows = Math.ceil(cells / columns);
    sides.forEach((side) => {
      side.box.style.aspectRatio = `${columns}/${small && !narrow.matches ? 2 * rows : rows}`;
      side.use(side.used, columns, rows, cell);
    });
    view.classList.toggle("touching", !sides[0].gap); // without gaps a free cell is no outline, and the legend says so
  }

  function choose() {
    const { arms } = all[workload.value];
    const parts = sides.map((side) => arms[side.select.value]);
    const part = parts.every((one) => one.all) ? "all" : "cut";
    sides.forEach((side, i) => {
      side.used = parts[i][part] || Object.values(parts[i])[0];
      side.what.replaceChildren(...armName(side.select.value));
    });
    lay();
    const used = sides.map((side) => side.part);
    look.hues = poolData.paint([...used].reverse()); // the paged side first: more requests meet there
    const ids = [...new Set(used.flatMap((one) => [...one.when.keys()]))].sort((a, b) => a - b);
    follow.replaceChildren(follow.options[0], ...ids.map((id) => new Option(String(id), String(id))));
    pin(null);
  }

  function armName(arm) {
    return Object.keys(page.words).map((language) => {
      const span = document.createElement("span");
      span.className = language;
      span.lang = language === "zh" ? "zh-Hans" : language;
      span.textContent = page.words[language].arms[arm] || arm;
      return span;
    });
  }

  function show(force) {
    for (const side of sides) side.show(side.at(clock(side)), force);
    slider.value = Math.round(position * MOST);
    const now = performance.now();
    if (playing && !force && now - written < WORDS_MS) return;
    written = now;
    for (const side of sides) side.write();
    page.tell(get("pool-time"), own() ? `${Math.round(position * 100)}%` : page.fill(words().at, { t: look.seconds(position * longest()) }));
    get("pool-hint").hidden = look.followed !== null;
    page.tell(get("pool-request"), look.followed === null ? "" : sides.map((side) => side.follow(look.followed)).join(" · "));
    if (!playing) describe();
  }

  // For screen readers: what both sides hold, once the view is paused.
  function describe() {
    const [left, right] = sides.map((side) => side.say());
    const value = page.fill(words().value, { t: look.seconds(position * longest()), left, right });
    slider.setAttribute("aria-valuetext", value);
    sides.forEach((side) => side.canvas.setAttribute("aria-label", side.say()));
    get("pool-live").textContent = document.activeElement === slider ? "" : value;
  }

  // Follow a request; where neither side holds it now, go to when it runs.
  function pin(request, go) {
    pinned = look.followed = request;
    follow.value = request === null ? "" : String(request);
    if (!go || request === null) return;
    const here = sides.some((side) => side.part.frames[side.at(clock(side))]?.some((one) => one[0] === request));
    const side = [sides[1], sides[0]].find((one) => one.part.when.has(request));
    if (!here && side) position = Math.min(1, (side.part.t[side.part.when.get(request)] + 0.05) / (own() ? side.part.end : longest()));
  }

  function moved() {
    page.keep({
      t: position.toFixed(4), arms: sides.map((side) => side.select.value).join(","), clock: chosen("pool-clock"),
      order: look.grouped ? "request" : null, request: pinned === null ? null : String(pinned),
    });
  }

  function step(direction) {
    stop();
    const times = sides.flatMap((side) => [...side.part.t, side.part.end].map((ms) => ms / (own() ? side.part.end : longest())));
    const near = 1e-9, ordered = times.sort((a, b) => a - b);
    const next = direction > 0 ? ordered.find((time) => time > position + near) : ordered.findLast((time) => time < position - near);
    position = Math.min(1, Math.max(0, next ?? (direction > 0 ? 1 : 0)));
    show();
    moved();
  }

  function run(now) {
    if (!playing) return;
    const passed = last ? now - last : 0;
    // Reduced motion: single frames instead of an animation.
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
      show();
      moved();
      return;
    }
    if (position >= 1) position = 0;
    playing = true;
    last = 0;
    play.setAttribute("aria-pressed", "true");
    requestAnimationFrame(run);
  });
  slider.addEventListener("input", () => { stop(); position = slider.value / MOST; show(); });
  slider.addEventListener("change", moved);
  get("pool-back").addEventListener("click", () => step(-1));
  get("pool-forward").addEventListener("click", () => step(1));
  const followed = (request) => { pin(request, true); show(true); moved(); };
  follow.addEventListener("change", () => followed(follow.value === "" ? null : Number(follow.value)));
  for (const [id, by] of [["pool-previous", -1], ["pool-next", 1]]) {
    get(id).addEventListener("click", () => {
      const next = follow.options[(follow.selectedIndex + by + follow.options.length) % follow.options.length];
      followed(next.value === "" ? null : Number(next.value));
    });
  }
  workload.addEventListener("change", () => page.setWorkload(workload.value));
  for (const input of page.all("[name=pool-clock], [name=pool-order]", view)) {
    input.addEventListener("change", () => { look.grouped = chosen("pool-order") === "request"; show(true); moved(); });
  }
  for (const side of sides) {
    side.select.addEventListener("change", () => { choose(); show(true); moved(); });
    const point = (event) => {
      const over = event ? side.requestAt(event.offsetX, event.offsetY) : null;
      const next = over === null ? pinned : over;
      if (next !== look.followed) { look.followed = next; show(true); }
    };
    side.canvas.addEventListener("pointerdown", point);
    side.canvas.addEventListener("pointermove", point);
    side.canvas.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse") point(null); });
    side.canvas.addEventListener("click", (event) => {
      const over = side.requestAt(event.offsetX, event.offsetY);
      pin(over === pinned ? null : over);
      show(true);
      moved();
    });
  }

  function open() {
    stop();
    opened = workload.value;
    const { pair, arms } = all[workload.value];
    sides.forEach((side, i) => {
      side.select.replaceChildren(...Object.keys(arms).map((arm) => new Option(arm, arm)));
      side.select.value = pair[i];
    });
    choose();
    // Opened where the paged pool is fullest. Where one arm takes much longer, each side has its own clock.
    const ends = sides.map((side) => side.part.end);
    view.querySelector(`[name=pool-clock][value=${Math.max(...ends) > 8 * Math.min(...ends) ? "own" : "same"}]`).checked = true;
    const right = sides[1].part;
    const held = right.frames.map((frame) => frame.reduce((sum, one) => sum + one[1], 0));
    position = right.t[held.indexOf(Math.max(...held))] / (own() ? right.end : longest());
    show(true);
  }

  // A moment that the address names.
  function arrive() {
    const asked = page.asked;
    if (!asked.get("t")) return;
    const arms = (asked.get("arms") || "").split(",");
    sides.forEach((side, i) => { if (all[workload.value].arms[arms[i]]) side.select.value = arms[i]; });
    choose();
    for (const name of ["clock", "order"]) {
      const input = page.all(`[name=pool-${name}]`, view).find((one) => one.value === asked.get(name));
      if (input) input.checked = true;
    }
    look.grouped = chosen("pool-order") === "request";
    position = Math.min(1, Math.max(0, Number(asked.get("t")) || 0));
    if (asked.get("request")) pin(Number(asked.get("request")));
    show(true);
  }

  readInk();
  const known = page.asked.get("workload");
  if (known && all[known]) workload.value = known;
  open();
  arrive();
  let width = view.clientWidth;
  new ResizeObserver(() => {
    if (view.clientWidth === width) return;
    width = view.clientWidth;
    lay();
    show(true);
  }).observe(view);
  document.addEventListener("kvlab:theme", () => { readInk(); sides.forEach((side) => { side.patterns = new Map(); }); show(true); });
  document.addEventListener("kvlab:language", () => show(true));
  document.addEventListener("kvlab:workload", (event) => {
    if (!all[event.detail] || opened === event.detail) return;
    workload.value = event.detail;
    open();
  });
})();
