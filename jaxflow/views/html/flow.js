// The layered flow graph: draws what flow.py wrote, from the same numbers, for any output, any share and any node that is looked at.
const SVG = "http://www.w3.org/2000/svg";
const RESIDUAL = 1, FEEDBACK = 3;
const cut = (text, longest = 16) => text.length > longest ? text.slice(0, longest - 1) + "…" : text;
const percent = (x) => (100 * x).toFixed(1) + "%";
const flowUnits = 1e5;

function element(name, attributes, text) {
  const made = document.createElementNS(SVG, name);
  for (const key in attributes) made.setAttribute(key, attributes[key]);
  if (text !== undefined) made.textContent = text;
  return made;
}

// Returns what redraws the graph of the output in `state.row`, and what redraws the part of it that is looked at.
function flowGraph(data, state, find, say) {
  const svg = find("svg.flow"), box = find(".flow-frame"), frame = data.frame;
  let place = null;
  if (!svg) return { draw() {}, drawParts() {}, drawLayers() {} };
  const shownGraph = () => data.graphs[state.row];
  const wide = (units) => units / flowUnits * frame.scale;

  function draw() {
    const shown = shownGraph();
    for (const part of [box, find(".legend"), find(".share-readout")]) part.hidden = !shown;
    place = null;
    if (!shown) { say(".flow-readout", "The flow to this output was not asked for: explain(..., flow_graph=True) finds it."); return; }
    const last = frame.columns[frame.columns.length - 1][0];
    const letters = (texts) => Math.max(...texts.map((text) => cut(text).length));
    const label = Math.min(140, 24 + 7.4 * letters(data.tokens)), right = Math.min(150, 24 + 7.4 * letters([data.outputs[state.row]]));
    const gap = Math.max(44, Math.min(260, ((box.clientWidth || 800) - label - right) / last));
    const top = 34, size = Math.min(13, frame.height - 1);
    const x = shown.x.map((column) => label + gap * column);
    const y = shown.y.map((row) => top + frame.height * (row + 0.5));
    const width = label + gap * last + right, height = top + frame.height * frame.rows + 6;
    svg.replaceChildren();
    for (const [key, value] of Object.entries({ width, height, viewBox: `0 0 ${width} ${height}` })) svg.setAttribute(key, value);
    svg.setAttribute("aria-label", "Layered flow graph: " + data.titles[state.row]);
    for (const [column, name] of frame.columns)
      svg.append(element("text", { class: "axis", "text-anchor": "middle", x: label + gap * column, y: 14 }, name));

    const drawn = shown.from.map((_, arc) => arc).filter((arc) => shown.stronger[arc] / flowUnits < state.share);
    const leaves = stacked(drawn, shown.from, shown.to), enters = stacked(drawn, shown.to, shown.from);
    function stacked(arcs, here, there) {
      const filled = {}, at = {};
      for (const arc of arcs) filled[here[arc]] = (filled[here[arc]] || 0) - wide(shown.flow[arc]) / 2;
      for (const arc of [...arcs].sort((a, b) => y[there[a]] - y[there[b]] || x[there[a]] - x[there[b]])) {
        at[arc] = y[here[arc]] + filled[here[arc]] + wide(shown.flow[arc]) / 2;
        filled[here[arc]] += wide(shown.flow[arc]);
      }
      return at;
    }
    function line(arc, units, least, style) {
      const x0 = x[shown.from[arc]], x1 = x[shown.to[arc]], bend = x1 > x0 ? (x1 - x0) / 2 : gap / 2;
      const width = Math.max(wide(units), least), isBack = shown.kind[arc] === FEEDBACK;
      const made = element("path", { "stroke-width": width,
        d: `M${x0} ${leaves[arc]}C${x0 + bend} ${leaves[arc]} ${x1 - bend} ${enters[arc]} ${x1} ${enters[arc]}` });
      if (style || isBack) made.setAttribute("class", style + (isBack ? " back" : ""));
      if (shown.kind[arc] === RESIDUAL && style !== "ghost")
        made.setAttribute("stroke-dasharray", `${4 + 0.35 * width} ${2 + 0.12 * width}`);
      return made;
    }
    const cuts = new Set(shown.cut);
    const ghosts = element("g", { class: "ghosts" }), flows = element("g", { class: "flows" });
    for (const arc of drawn) {
      if (shown.kind[arc] !== FEEDBACK) ghosts.append(line(arc, shown.capacity[arc], 0.3, "ghost"));
      const flow = line(arc, shown.flow[arc], 0.3, cuts.has(arc) ? "cut" : "");
      flow.dataset.arc = arc;
      flows.append(flow);
    }
    const over = element("g", { class: "over" }), nodes = element("g", {});
    const touched = [...new Set([shown.output, ...drawn.flatMap((arc) => [shown.from[arc], shown.to[arc]])])];
    for (const node of touched) {
      const tall = Math.max(wide(shown.through[node]), 1.5);
      nodes.append(element("rect", { class: "node", x: x[node] - 1, y: y[node] - tall / 2, width: 2, height: tall }));
    }
    svg.append(ghosts, flows, over, nodes);
    shown.rows.forEach((row, player) => {
      if (row < 0) return;
      svg.append(element("text", { class: shown.players[player] < 0 ? "halo off" : "halo", "text-anchor": "end", "font-size": size,
        x: label + gap * (player >= data.nEncoder ? frame.decoder : 0) - 8, y: top + frame.height * (row + 0.5) + size * 0.33,
      }, cut(data.tokens[player])));
    });
    svg.append(element("text", { class: "halo", x: x[shown.output] + 8, y: y[shown.output] + 4 }, cut(data.outputs[state.row])));
    place = { x, y, gap, drawn, line, over, touched };
    const carried = drawn.reduce((sum, arc) => sum + shown.flow[arc], 0) / flowUnits / Math.max(shown.total, 1e-300);
    const folded = shown.nArcs > shown.from.length && carried < Math.min(state.share, 1);
    say(".share-readout", `Drawn: ${percent(carried)} of the flow, ${drawn.length} of ${shown.nArcs} arcs` +
      (folded ? `; this page holds the ${shown.from.length} strongest.` : "."));
    drawParts();
  }

  // How much of each arc's flow passes the nodes in `start`: at a node, flows mix in proportion. Nodes are in topological order.
  function partsOf(start, shown) {
    const parts = new Map(), order = [...place.drawn];
    for (const [near, far, way] of [[shown.from, shown.to, 1], [shown.to, shown.from, -1]]) {
      const amount = Object.fromEntries(start.map((node) => [node, shown.through[node]]));
      for (const arc of order.sort((a, b) => way * (near[a] - near[b]))) {
        if (!amount[near[arc]]) continue;
        const part = amount[near[arc]] * shown.flow[arc] / shown.through[near[arc]];
        amount[far[arc]] = (amount[far[arc]] || 0) + part;
        parts.set(arc, part);
      }
    }
    return parts;
  }

  function drawParts() {
    const shown = shownGraph();
    if (!place || !shown) return;
    place.over.replaceChildren();
    const looked = state.node >= 0 ? [state.node] : state.players.map((player) => shown.players[player]);
    const start = looked.filter((node) => node >= 0);
    svg.classList.toggle("dim", start.length > 0);
    if (!start.length) { say(".flow-readout", looked.length ? "Nothing flows from here to this output." : ""); return; }
    for (const [arc, part] of partsOf(start, shown)) place.over.append(place.line(arc, part, 0.4, ""));
    const players = start.map((node) => shown.players.indexOf(node)), of = ` of the joint flow of ${shown.value.toFixed(3)}`;
    const through = (start.reduce((sum, node) => sum + shown.through[node], 0) / flowUnits).toFixed(3);
    if (players[0] < 0) { say(".flow-readout", `${nodeName(shown, start[0])}: ${through}${of} passes here.`); return; }
    let text = `${players.map((player) => data.tokens[player]).join(" ")}: sends ${through}${of}`;
    if (start.length === 1) {
      for (const arc of shown.own[players[0]])
        if (shown.stronger[arc] / flowUnits < state.share) place.over.append(place.line(arc, shown.capacity[arc], 0.6, "cut"));
      text += ownCut(shown, players[0]);
    }
    say(".flow-readout", text + ".");
  }

  function ownCut(shown, player) {
    if (!shown.ownLayers) return "";
    const layers = shown.ownLayers[player], total = layers.reduce((a, b) => a + b, 0);
    const where = layers.map((held, layer) => [held / Math.max(total, 1), layer]).filter(([held]) => held >= 0.05)
      .sort((a, b) => b[0] - a[0]).map(([held, layer]) => `layer ${data.layerNames[layer]} (${Math.round(100 * held)}%)`);
    return `; alone it could send ${(total / 1e3).toFixed(3)}` + (where.length ? `, bounded in ${where.join(", ")}` : "");
  }

  function nodeName(shown, node) {
    if (node === shown.output) return data.outputs[state.row];
    const inDecoder = !data.nEncoder || (frame.decoder > 0 && shown.x[node] > frame.decoder - 0.6);
    const column = frame.columns.find(([at]) => at >= shown.x[node] - 1e-6);
    const player = shown.rows.findIndex((row, i) => row === shown.y[node] && (i >= data.nEncoder) === inDecoder);
    return (player >= 0 ? data.tokens[player] : "position " + shown.y[node]) + (column ? ", layer " + column[1] : "");
  }

  function drawLayers() {
    const shown = shownGraph(), table = find(".layers tbody");
    find(".layers").hidden = !shown;
    if (!shown) return;
    [...table.rows].forEach((line, layer) => {
      const [capacity, flow, share] = shown.layers[layer].map((units) => units / flowUnits);
      line.cells[1].textContent = capacity.toFixed(3);
      line.cells[2].textContent = flow.toFixed(3);
      line.cells[3].textContent = percent(share);
      line.cells[4].firstElementChild.style.width = percent(share);
    });
  }

  const lookAt = (node) => { if (node !== state.node) { state.node = node; drawParts(); } };
  svg.addEventListener("pointermove", (event) => {
    if (!place) return;
    const edge = svg.getBoundingClientRect(), px = event.clientX - edge.left, py = event.clientY - edge.top;
    let best = -1, least = 1;
    for (const node of place.touched) {
      const far = Math.abs(px - place.x[node]) / Math.min(place.gap / 2, 60) + Math.abs(py - place.y[node]) / Math.max(frame.height, 12);
      if (far < least) { least = far; best = node; }
    }
    lookAt(best);
  });
  svg.addEventListener("pointerleave", () => lookAt(-1));
  box.addEventListener("blur", () => lookAt(-1));
  // Arrows lead from node to node: to the nearest one of the next layer, or of the same layer.
  box.addEventListener("keydown", (event) => {
    const shown = shownGraph();
    if (!place || !shown || !/^(Arrow|Escape)/.test(event.key)) return;
    event.preventDefault();
    if (event.key === "Escape") return lookAt(-1);
    if (state.node < 0) return lookAt(shown.output);
    const side = /Left|Right/.test(event.key), sign = /Right|Down/.test(event.key) ? 1 : -1, from = state.node;
    const [along, across] = side ? [place.x, place.y] : [place.y, place.x];
    const ahead = place.touched.filter((node) => (along[node] - along[from]) * sign > 0.5 && (side || Math.abs(across[node] - across[from]) < 0.5));
    const far = (node) => Math.abs(along[node] - along[from]) * 1e4 + Math.abs(across[node] - across[from]);
    if (ahead.length) lookAt(ahead.reduce((best, node) => far(node) < far(best) ? node : best));
  });
  new ResizeObserver(draw).observe(box);
  return { draw, drawParts, drawLayers };
}
