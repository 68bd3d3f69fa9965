// The flow graph of the output that is looked at. Places, sizes, styles and names come from the page's data; the script chooses how much
// is drawn, how far columns are apart, and which node is looked at.
const SVG = "http://www.w3.org/2000/svg";
// A name beside other words keeps its direction to itself, as in <bdi>.
const apart = (name) => "\u2068" + name + "\u2069";

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
  const percent = (share) => (100 * share).toFixed(data.digits.percent) + "%";
  const isDrawn = (shown, arc) => shown.stronger[arc] / data.fineUnit < state.share;

  function draw() {
    const shown = shownGraph();
    for (const part of [box, find(".legend"), find(".share-readout")]) part.hidden = !shown;
    place = null;
    if (!shown) { say(".flow-readout", "The page does not hold the flow to this output: explanation.flow_graph(row) finds it."); return; }
    const [narrowest, usual, widest] = frame.gaps, last = frame.columns[frame.columns.length - 1][0];
    const room = (box.clientWidth - frame.left - shown.right) / last;
    const gap = box.clientWidth ? Math.max(narrowest, Math.min(widest, room)) : usual;
    const across = (column) => frame.left + gap * column;
    const down = (row) => frame.rows[0] + frame.rows[1] * row;
    const x = shown.x.map(across), y = shown.y.map(down);
    const width = across(last) + shown.right, height = frame.height;
    svg.replaceChildren();
    for (const [key, value] of Object.entries({ width, height, viewBox: `0 0 ${width} ${height}` })) svg.setAttribute(key, value);
    svg.setAttribute("aria-label", "Layered flow graph: " + data.titles[state.row]);
    for (const [column, name] of frame.columns)
      svg.append(element("text", { class: "axis", "text-anchor": "middle", x: across(column), y: frame.axis }, name));

    const drawn = shown.from.map((_, arc) => arc).filter((arc) => isDrawn(shown, arc));
    function line(arc, units, least, css, isDashed) {
      const from = shown.from[arc], to = shown.to[arc], style = frame.styles[shown.kind[arc]];
      const x0 = x[from], x1 = x[to], y0 = y[from] + frame.step * shown.leaves[arc], y1 = y[to] + frame.step * shown.enters[arc];
      const bend = style.level * (x1 - x0) + style.beyond * gap, wide = Math.max(units * frame.scale, least);
      const made = element("path", { "stroke-width": wide, d: `M${x0} ${y0}C${x0 + bend} ${y0} ${x1 - bend} ${y1} ${x1} ${y1}` });
      const all = [css, style.css].filter((one) => one).join(" ");
      if (all) made.setAttribute("class", all);
      if (isDashed && style.is_dashed) made.setAttribute("stroke-dasharray", frame.dash.map(([fixed, grows]) => fixed + grows * wide).join(" "));
      return made;
    }
    const cuts = new Set(shown.cut);
    const ghosts = element("g", { class: "ghosts" }), flows = element("g", { class: "flows" });
    for (const arc of drawn) {
      if (frame.styles[shown.kind[arc]].has_capacity) ghosts.append(line(arc, shown.capacity[arc], frame.least.arc, "", false));
      const flow = line(arc, shown.flow[arc], frame.least.arc, cuts.has(arc) ? "cut" : "", true);
      flow.dataset.arc = arc;
      flows.append(flow);
    }
    const over = element("g", { class: "over" }), nodes = element("g", {});
    const touched = [...new Set([shown.output, ...drawn.flatMap((arc) => [shown.from[arc], shown.to[arc]])])];
    for (const node of touched) {
      const tall = Math.max(shown.through[node] * frame.scale, frame.least.node);
      nodes.append(element("rect", { class: "node", x: x[node] - frame.node / 2, y: y[node] - tall / 2, width: frame.node, height: tall }));
    }
    svg.append(ghosts, flows, over, nodes);
    for (const [input, column, row, sends] of shown.names)
      svg.append(element("text", { class: frame.nameClasses[sends], "text-anchor": "end", "font-size": frame.letters,
        x: across(column) - frame.pad, y: down(row) + frame.baseline }, frame.names[input]));
    svg.append(element("text", { class: "halo", x: x[shown.output] + frame.pad, y: y[shown.output] + frame.baseline }, shown.outputName));
    place = { x, y, gap, drawn, line, over, touched };
    const carried = drawn.reduce((sum, arc) => sum + shown.flow[arc], 0) / data.fineUnit / Math.max(shown.total, 1e-300);
    say(".share-readout", shown.drawn.replace("{share}", percent(carried)).replace("{arcs}", drawn.length));
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
    const looked = state.node >= 0 ? [state.node] : state.inputs.map((input) => shown.inputs[input]);
    const start = looked.filter((node) => node >= 0);
    svg.classList.toggle("dim", start.length > 0);
    if (!start.length) { say(".flow-readout", looked.length ? "Nothing flows from here to this output." : ""); return; }
    for (const [arc, part] of partsOf(start, shown)) place.over.append(place.line(arc, part, frame.least.arc, "", true));
    const inputs = start.map((node) => shown.inputs.indexOf(node)), of = ` of the joint flow of ${shown.value.toFixed(data.digits.brief)}`;
    const through = (start.reduce((sum, node) => sum + shown.through[node], 0) / data.fineUnit).toFixed(data.digits.brief);
    if (inputs[0] < 0) { say(".flow-readout", `${nodeName(shown, start[0])}: ${through}${of} passes here.`); return; }
    let text = `${inputs.map((input) => apart(data.tokens[input])).join(" ")}: sends ${through}${of}`;
    if (start.length === 1) {
      for (const arc of shown.own[inputs[0]])
        if (isDrawn(shown, arc)) place.over.append(place.line(arc, shown.capacity[arc], frame.least.cut, "cut", true));
      text += ownCut(shown, inputs[0]);
    }
    say(".flow-readout", text + ".");
  }

  function ownCut(shown, input) {
    if (!shown.ownLayers) return "";
    const layers = shown.ownLayers[input], total = layers.reduce((a, b) => a + b, 0);
    const where = layers.map((held, layer) => [held / Math.max(total, 1), layer]).filter(([held]) => held >= 0.05)
      .sort((a, b) => b[0] - a[0]).map(([held, layer]) => `layer ${data.layerNames[layer]} (${Math.round(100 * held)}%)`);
    return `; alone it could send ${(total / data.fineUnit).toFixed(data.digits.brief)}` + (where.length ? `, bounded in ${where.join(", ")}` : "");
  }

  function nodeName(shown, node) {
    if (node === shown.output) return data.outputs[state.row];
    const input = shown.input[node], name = input < 0 ? "position " + shown.y[node] : apart(data.tokens[input]);
    return `${name}, layer ${frame.columns[shown.column[node]][1]}`;
  }

  function drawLayers() {
    const shown = shownGraph(), table = find(".layers tbody");
    find(".layers").hidden = !shown;
    if (!shown) return;
    [...table.rows].forEach((line, layer) => {
      const [capacity, flow, share] = shown.layers[layer].map((units) => units / data.fineUnit);
      line.cells[1].textContent = capacity.toFixed(data.digits.brief);
      line.cells[2].textContent = flow.toFixed(data.digits.brief);
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
      const far = Math.abs(px - place.x[node]) / Math.min(place.gap / 2, 60) + Math.abs(py - place.y[node]) / Math.max(frame.rows[1], 12);
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
