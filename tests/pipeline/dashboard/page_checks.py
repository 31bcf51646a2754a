"""What tests ask of a page in a browser, as expressions for browser.mjs."""

from __future__ import annotations

DRAWN = {"until": "[...document.querySelectorAll('.chart')].every(each => each.dataset.drawn === 'true')"}

# Text whose contrast with what lies under it is below WCAG 2.2 AA (4.5; 3 from 24 px on).
LOW_CONTRAST = """
(() => {
  const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
  const luminance = ([r, g, b]) => {
    const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    const [x, y, z] = [r, g, b].map((v) => linear(v / 255));
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const under = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = rgb(getComputedStyle(at).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const low = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const element = node.parentElement;
    if (!node.data.trim() || !element.checkVisibility()) continue;
    if (['SCRIPT', 'TITLE', 'OPTION'].includes(element.tagName)) continue;
    const style = getComputedStyle(element);
    const [a, b] = [luminance(rgb(style.color)), luminance(under(element))];
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    const enough = parseFloat(style.fontSize) >= 24 ? 3 : 4.5;
    if (contrast < enough) low.push(`${node.data.trim()}: ${contrast.toFixed(2)}`);
  }
  return low;
})()
"""

# How many different colours a chart's canvas shows: an empty one shows one.
COLOURS = """
(() => {
  const canvas = document.querySelector('#by-team canvas');
  const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
  const colours = new Map();
  for (let at = 0; at < data.length; at += 4) {
    const key = data.slice(at, at + 4).join();
    colours.set(key, (colours.get(key) ?? 0) + 1);
  }
  return [...colours.values()].filter((count) => count > 200).length;
})()
"""
