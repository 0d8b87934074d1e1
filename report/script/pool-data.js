// The pool view's data: from the page's JSON to frames of [request, tokens stored, slots], their places and colours.
const poolData = (() => {
  const HUES = 10;
  const unrun = (list) => list.flatMap((_, i) => (i % 2 ? [] : Array(list[i + 1]).fill(list[i])));

  function decode(part) {
    if (part.frames) return part;
    part.frames = part.t.map(() => []);
    part.when = new Map(); // request → the first frame that holds it
    for (const [request, first, off, extra] of part.held) {
      const more = unrun(extra);
      let stored = 0;
      if (!part.when.has(request)) part.when.set(request, first);
      unrun(off).forEach((value, k) => {
        const f = first + k;
        stored = k ? stored + value + part.step[f] - part.step[f - 1] : value;
        part.frames[f].push([request, stored, Math.ceil(stored / part.block) * part.block + more[k]]);
      });
    }
    part.waitingAt = unrun(part.waiting);
    part.preemptedAt = unrun(part.preempted);
    part.unit = part.reserve || part.block;
    // Slots that a request is charged, and those of the piece that it takes.
    part.charge = (request, slots) => part.chunks[request]?.[0] ?? Math.max(slots, part.reserve);
    part.take = (request, slots) => part.chunks[request]?.[1] ?? Math.max(slots, part.reserve);
    place(part);
    return part;
  }

  const pieces = (part, request, slots) => Math.ceil(part.take(request, slots) / part.unit);

  // The first free piece of `count` places that begins at a multiple of its size, as an allocator of chunks cuts them.
  function piece(taken, count, most) {
    for (let at = 0; at + count <= most; at += count) {
      const places = Array.from({ length: count }, (_, k) => at + k);
      if (!places.some((place) => taken[place])) return places;
    }
    return [];
  }

  // The logs count a request's blocks and do not say where they are: each new one takes the first free place.
  function place(part) {
    const taken = [], of = new Map(); // request → its places, in the order of its tokens
    part.places = part.frames.map((frame) => {
      const here = new Set(frame.map((one) => one[0]));
      for (const [request, places] of of) {
        if (here.has(request)) continue;
        for (const at of places) taken[at] = false;
        of.delete(request);
      }
      for (const [request, , slots] of frame) {
        const places = of.get(request) || [];
        while (places.length > pieces(part, request, slots)) taken[places.pop()] = false;
        if (part.whole && !places.length) places.push(...piece(taken, pieces(part, request, slots), part.pool / part.unit));
        for (const at of places) taken[at] = true;
        of.set(request, places);
      }
      let free = 0;
      for (const [request, , slots] of frame) {
        const places = of.get(request), count = pieces(part, request, slots);
        while (places.length < count) {
          while (taken[free]) free += 1;
          taken[free] = true;
          places.push(free);
        }
      }
      return frame.map(([request]) => of.get(request).slice());
    });
  }

  // The same pieces, each request's side by side, in the order of the requests.
  function grouped(part, f) {
    const frame = part.frames[f], order = frame.map((_, i) => i).sort((a, b) => frame[a][0] - frame[b][0]);
    const places = [];
    let free = 0;
    for (const i of order) {
      const count = pieces(part, frame[i][0], frame[i][2]);
      places[i] = Array.from({ length: count }, (_, k) => free + k);
      free += count;
    }
    return places;
  }

  // A colour for each request, the same on both sides; requests that hold cache together differ as far as colours last.
  function paint(parts) {
    const chosen = new Map();
    for (const part of parts) {
      for (const frame of part.frames) {
        const fresh = frame.filter(([request]) => !chosen.has(request));
        if (!fresh.length) continue;
        const used = Array(HUES).fill(0);
        for (const [request] of frame) if (chosen.has(request)) used[chosen.get(request)] += 1;
        for (const [request] of fresh) {
          let best = request % HUES;
          for (let k = 0; k < HUES; k += 1) {
            const hue = (request + k) % HUES;
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
      const held = part.charge(request, slots);
      tokens += stored;
      charged += held;
      filled += Math.min(held, part.final[request]);
    }
    return { tokens, reserved: filled - tokens, internal: charged - filled, external: part.pool - charged };
  }

  return { decode, grouped, paint, shares };
})();
