"""The script of pages with charts and sliders, written by hand.

It builds the page with `textContent` and attributes only, never from HTML in
strings, so no value can become markup.
"""

SCRIPT = """'use strict';
const COLOURS = ['#3b78b5', '#d0883a', '#3f9b6c', '#b9507c', '#8467c4',
  '#8a8f3c', '#4aa3b5', '#c05a4a'];
const LEFT = 56, RIGHT = 24, TOP = 8, BOTTOM = 24, HEIGHT = 220;

function element(parent, name, attributes = {}, words = '') {
  const svg = parent.namespaceURI.endsWith('svg') || name === 'svg';
  const node = svg
    ? document.createElementNS('http://www.w3.org/2000/svg', name)
    : document.createElement(name);
  for (const key in attributes) node.setAttribute(key, attributes[key]);
  if (words !== '') node.textContent = words;
  return parent.appendChild(node);
}

function short(value) {
  if (value === 0) return '0';
  const size = Math.abs(value);
  if (size >= 1e6 || size < 1e-4) return value.toExponential(2);
  return String(Number(value.toPrecision(size >= 1e4 ? 6 : 4)));
}

function linearTicks(low, high, count) {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((x) => x * power >= rough);
  const found = [];
  for (let i = Math.ceil(low / step); i * step <= high + step * 1e-9; i++) {
    found.push(i * step);
  }
  return found;
}

function logTicks(low, high) {
  if (high - low < 0.8) return linearTicks(10 ** low, 10 ** high, 5);
  const found = [];
  for (let k = Math.floor(low); k <= Math.ceil(high); k++) {
    for (const digit of high - low < 1.5 ? [1, 2, 5] : [1]) {
      const tick = digit * 10 ** k;
      const at = Math.log10(tick);
      if (at >= low - 1e-9 && at <= high + 1e-9) found.push(tick);
    }
  }
  const every = Math.ceil(found.length / 6);
  return found.filter((_, i) => i % every === 0);
}

function makeChart(figure) {
  const content = JSON.parse(figure.dataset.chart);
  const hidden = new Set();
  const title = figure.querySelector('h3');
  const label = element(title, 'label');
  const box = element(label, 'input', {type: 'checkbox'});
  label.append(' log');
  box.checked = content.log;
  const frame = element(figure, 'div');
  const svg = element(frame, 'svg', {height: HEIGHT, role: 'img',
    'aria-label': title.firstChild.textContent});
  const legend = element(figure, 'div', {class: 'legend'});
  const tip = element(figure, 'div', {class: 'tip', hidden: ''});
  let scale = null;

  content.series.forEach((line, i) => {
    const colour = COLOURS[line.colour % COLOURS.length];
    const button = element(legend, 'button', {type: 'button'});
    element(button, 'span', {style: 'color:' + colour},
      line.dashed ? '\\u2505 ' : '\\u2501 ');
    button.append(line.name);
    button.addEventListener('click', () => {
      if (!hidden.delete(i)) hidden.add(i);
      button.classList.toggle('off', hidden.has(i));
      draw();
    });
  });

  function axis() {
    const menu = document.querySelector('select.axis');
    return menu ? menu.value : Object.keys(content.series[0].x)[0];
  }

  function shown() {
    return content.series.filter((_, i) => !hidden.has(i));
  }

  function draw() {
    tip.hidden = true;
    svg.replaceChildren();
    const width = frame.clientWidth, log = box.checked, name = axis();
    if (!width || !content.series.length) return;
    const usable = (y) => y !== null && (!log || y > 0);
    const high = HEIGHT - BOTTOM, xs = [], ys = [];
    for (const line of shown()) {
      line.y.forEach((y, i) => {
        xs.push(line.x[name][i]);
        if (usable(y)) ys.push(log ? Math.log10(y) : y);
      });
    }
    const bounds = (values) => values.reduce(
      ([a, b], v) => [Math.min(a, v), Math.max(b, v)], [Infinity, -Infinity]);
    let [x0, x1] = bounds(xs), [y0, y1] = bounds(ys);
    if (!(x1 > x0)) { x0 = (x0 || 0) - 0.5; x1 = x0 + 1; }
    if (!ys.length) { y0 = 0; y1 = 1; }
    const margin = (y1 - y0) * 0.04 || Math.abs(y0) * 0.05 || 0.5;
    y0 -= margin; y1 += margin;
    const px = (x) => LEFT + (x - x0) / (x1 - x0) * (width - LEFT - RIGHT);
    const py = (y) => high - ((log ? Math.log10(y) : y) - y0)
      / (y1 - y0) * (high - TOP);
    scale = {name, px, py, usable, width, high};
    for (const tick of log ? logTicks(y0, y1) : linearTicks(y0, y1, 5)) {
      const y = Math.round(py(tick)) + 0.5;
      element(svg, 'path', {class: 'grid',
        d: `M${LEFT} ${y}H${width - RIGHT}`});
      element(svg, 'text', {x: LEFT - 6, y: y + 4, 'text-anchor': 'end'},
        short(tick));
    }
    for (const tick of linearTicks(x0, x1, Math.max(2, width / 110))) {
      const x = Math.round(px(tick)) + 0.5;
      element(svg, 'path', {class: 'grid', d: `M${x} ${high}v4`});
      element(svg, 'text', {x, y: HEIGHT - 6, 'text-anchor': 'middle'},
        short(tick));
    }
    for (const line of shown()) drawLine(line);
  }

  function drawLine(line) {
    const {name, px, py, usable} = scale;
    const colour = COLOURS[line.colour % COLOURS.length];
    let path = '', gap = true;
    line.y.forEach((y, i) => {
      const x = px(line.x[name][i]);
      if (usable(y)) {
        path += (gap ? 'M' : 'L') + x.toFixed(1) + ' ' + py(y).toFixed(1);
      } else if (y === null) {
        element(svg, 'text', {x, y: TOP + 8, 'text-anchor': 'middle',
          style: 'fill:' + COLOURS[7]}, '\\u00d7');
      }
      gap = !usable(y);
    });
    element(svg, 'path', {d: path, fill: 'none', stroke: colour,
      'stroke-width': 1.6, 'stroke-linejoin': 'round',
      'stroke-dasharray': line.dashed ? '5 4' : 'none'});
    if (line.y.length <= 40) {
      line.y.forEach((y, i) => usable(y) && element(svg, 'circle', {
        cx: px(line.x[name][i]), cy: py(y), r: 2.2, fill: colour}));
    }
  }

  function hover(event) {
    if (!scale) return;
    svg.querySelectorAll('.mark').forEach((node) => node.remove());
    const {name, px, py, usable, high} = scale;
    const mouse = event.clientX - svg.getBoundingClientRect().left;
    let nearest = null;
    for (const line of shown()) {
      for (const x of line.x[name]) {
        if (nearest === null
            || Math.abs(px(x) - mouse) < Math.abs(px(nearest) - mouse)) {
          nearest = x;
        }
      }
    }
    if (nearest === null) return;
    const rows = [];
    element(svg, 'path', {class: 'grid mark',
      d: `M${px(nearest)} ${TOP}V${high}`});
    for (const line of shown()) {
      let best = -1;
      line.x[name].forEach((x, i) => {
        if (best < 0 || Math.abs(x - nearest)
            < Math.abs(line.x[name][best] - nearest)) best = i;
      });
      if (best < 0 || Math.abs(px(line.x[name][best]) - px(nearest)) > 12) {
        continue;
      }
      const y = line.y[best];
      rows.push((y === null ? 'not finite' : short(y)) + '  ' + line.name);
      if (usable(y)) {
        element(svg, 'circle', {class: 'mark', r: 3.5,
          cx: px(line.x[name][best]), cy: py(y),
          fill: COLOURS[line.colour % COLOURS.length]});
      }
    }
    tip.textContent = [name + ' ' + short(nearest), ...rows].join('\\n');
    tip.hidden = false;
    const room = figure.clientWidth - tip.offsetWidth;
    const at = px(nearest) + 12;
    tip.style.left = Math.max(0, Math.min(
      at > room ? px(nearest) - tip.offsetWidth - 12 : at, room)) + 'px';
    tip.style.top = (frame.offsetTop + 14) + 'px';
  }

  svg.addEventListener('pointermove', hover);
  svg.addEventListener('pointerdown', hover);
  svg.addEventListener('pointerleave', () => {
    tip.hidden = true;
    svg.querySelectorAll('.mark').forEach((node) => node.remove());
  });
  box.addEventListener('change', draw);
  new ResizeObserver(draw).observe(frame);
  return draw;
}

function makeSlider(figure) {
  const images = figure.querySelectorAll('img');
  const range = figure.querySelector('input');
  const words = figure.querySelector('output');
  function show() {
    images.forEach((image, i) => { image.hidden = i !== Number(range.value); });
    words.textContent = images[range.value].alt;
  }
  range.addEventListener('input', show);
  show();
}

const draws = [...document.querySelectorAll('figure.chart')].map(makeChart);
document.querySelectorAll('figure.slider').forEach(makeSlider);
const menu = document.querySelector('select.axis');
if (menu) menu.addEventListener('change', () => draws.forEach((f) => f()));
"""
