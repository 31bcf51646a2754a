// Draws the charts from the data blocks of the page, and keeps what the reader has open through a refresh.
// Without this file, or without the vendored scripts, a page still shows every number: the tables are HTML.
"use strict";

const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const charts = new Map();

function node(tag, className, text) {
  const made = document.createElement(tag);
  made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

// The tooltip is built of elements: names come from the wire and must stay text.
function tooltip(data, points) {
  const at = points[0].dataIndex;
  const box = node("div", "tip");
  box.append(node("div", "tip-title", data.labels[at]));
  const list = node("dl", "tip-rows");
  for (const line of data.lines) {
    if (line.values[at] === 0) continue;
    const key = node("dt", "");
    const dot = node("span", `tip-dot c${line.colour}`);
    key.append(dot, document.createTextNode(line.name));
    list.append(key, node("dd", "", line.texts[at]));
  }
  list.append(node("dt", "tip-total", "Total"), node("dd", "tip-total", data.totals[at]));
  box.append(list);
  return box;
}


function axisMoney(value) {
  if (value === 0) return "$0";
  if (value >= 0.1) {
    const decimals = value < 10 && !Number.isInteger(value) ? 2 : 0;
    return "$" + value.toLocaleString("en-US", { minimumFractionDigits: decimals, maximumFractionDigits: decimals });
  }
  return "$" + value.toLocaleString("en-US", { maximumSignificantDigits: 2, maximumFractionDigits: 9 });
}

function options(data) {
  const text = style("--quiet");
  const font = { color: text, fontFamily: style("--font"), fontSize: 12 };
  const round = data.labels.length <= 60 ? 2 : 0;
  return {
    animation: false,
    textStyle: font,
    grid: { left: 4, right: 8, top: 12, bottom: 2, containLabel: true },
    tooltip: {
      trigger: "axis", axisPointer: { type: "shadow", shadowStyle: { color: style("--hover") } },
      confine: true, backgroundColor: style("--panel"), borderColor: style("--line"), borderWidth: 1, padding: 10,
      extraCssText: "", formatter: (points) => tooltip(data, points),
    },
    xAxis: {
      type: "category", data: data.labels, axisTick: { show: false }, axisLine: { lineStyle: { color: style("--line") } },
      axisLabel: { ...font, hideOverlap: true },
    },
    yAxis: {
      type: "value", splitNumber: 4, axisLabel: { ...font, formatter: axisMoney },
      splitLine: { lineStyle: { color: style("--grid") } },
    },
    series: data.lines.map((line, index) => ({
      name: line.name, type: "bar", stack: "all", data: line.values, barCategoryGap: "22%", barMaxWidth: 44,
      itemStyle: { color: style(`--c${line.colour}`), borderRadius: index === data.lines.length - 1 ? [round, round, 0, 0] : 0 },
      emphasis: { disabled: true },
    })),
  };
}

function draw() {
  for (const [element, chart] of charts) {
    if (!element.isConnected) {
      chart.dispose();
      charts.delete(element);
    }
  }
  for (const element of document.querySelectorAll(".chart")) {
    const block = document.getElementById(`${element.id}-data`);
    if (!block) continue;
    if (!window.echarts) {
      element.hidden = true;
      document.getElementById(`${element.id}-details`).open = true;
      continue;
    }
    let chart = charts.get(element);
    if (!chart) {
      chart = echarts.init(element, null, { renderer: "canvas" });
      charts.set(element, chart);
    }
    chart.setOption(options(JSON.parse(block.textContent)), { notMerge: true });
    element.dataset.drawn = "true";
  }
}

// A refresh replaces #live whole; what the reader opened stays open, where they scrolled stays scrolled.
let kept = { open: [], scrolled: [] };
document.addEventListener("htmx:beforeRequest", (event) => {
  if (document.hidden && event.target.id === "live") event.preventDefault();
});
document.addEventListener("htmx:beforeSwap", () => {
  kept = {
    open: [...document.querySelectorAll("#live details[open]")].map((each) => each.id),
    scrolled: [...document.querySelectorAll("#live .scroll")].map((each) => each.scrollLeft),
  };
});
document.addEventListener("htmx:afterSwap", () => {
  for (const id of kept.open) document.getElementById(id)?.setAttribute("open", "");
  for (const [index, each] of document.querySelectorAll("#live .scroll").entries()) each.scrollLeft = kept.scrolled[index] ?? 0;
  draw();
});

// Filters: the URL is the state, so a change is a new page; what is not chosen stays out of the URL.
const form = document.getElementById("filters");
if (form) {
  const days = document.getElementById("days");
  const range = form.elements.namedItem("range");
  const showDays = () => {
    days.hidden = range.value !== "custom";
    for (const input of days.querySelectorAll("input")) input.disabled = days.hidden;
  };
  form.addEventListener("change", (event) => {
    showDays();
    if (event.target.type === "date" ? event.target.value : event.target !== range || range.value !== "custom") form.requestSubmit();
  });
  form.addEventListener("submit", () => {
    for (const each of form.querySelectorAll("select")) each.disabled = each.value === "";
  });
  window.addEventListener("pageshow", () => {
    for (const each of form.querySelectorAll("select")) each.disabled = false;
    showDays();
  });
  form.classList.add("live");
}

const theme = document.getElementById("theme");
if (theme) {
  const root = document.documentElement;
  const names = { "": "System theme", light: "Light theme", dark: "Dark theme" };
  const show = () => { theme.textContent = names[root.dataset.theme ?? ""]; };
  theme.hidden = false;
  show();
  theme.addEventListener("click", () => {
    const order = ["", "light", "dark"];
    const next = order[(order.indexOf(root.dataset.theme ?? "") + 1) % order.length];
    if (next) {
      root.dataset.theme = next;
      localStorage.setItem("theme", next);
    } else {
      delete root.dataset.theme;
      localStorage.removeItem("theme");
    }
    show();
    draw();
  });
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
new ResizeObserver(() => { for (const chart of charts.values()) chart.resize(); }).observe(document.body);
draw();
