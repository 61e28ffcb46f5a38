"""The look of the page: light or dark as the reader's system is, and narrow screens."""

CSS = """
:root { color-scheme: light dark; --ink: #1d2530; --soft: #5b6674; --line: #d9dee5;
  --page: #f6f7f9; --card: #ffffff; --shown: #2e8b57; --not: #cf3f5b; --unknown: #8b929c; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8ee; --soft: #9aa5b4; --line: #353d49;
  --page: #14181e; --card: #1c2129; } }
* { box-sizing: border-box; }
body { margin: 0; overflow-wrap: anywhere; background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, "Segoe UI", Roboto, Helvetica, Arial, sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
main.wide { max-width: 1160px; }
h1 { font-size: 1rem; font-weight: 600; color: var(--soft); margin: 0 0 1rem; }
h3 { font-size: .95rem; font-weight: 600; margin: 1.2rem 0 .5rem; }
h2 { font-size: 1.2rem; margin: 2.75rem 0 .6rem; }
p { max-width: 46rem; margin: .6rem 0; }
.soft, figcaption { color: var(--soft); font-size: .9rem; }
.verdict { background: var(--card); border-radius: 10px; padding: 1.1rem 1.4rem;
  border-left: 5px solid var(--unknown); }
.verdict.shown { border-color: var(--shown); }
.verdict.not { border-color: var(--not); }
.verdict p { max-width: none; }
.verdict .result { font-size: 1.3rem; line-height: 1.4; margin-top: 0; }
.scroll { overflow-x: auto; background: var(--card); border-radius: 10px; padding: .5rem 1rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .45rem .6rem; white-space: nowrap; }
th { font-weight: 600; font-size: .85rem; color: var(--soft); }
tbody tr { border-top: 1px solid var(--line); }
tbody th { color: inherit; font-size: inherit; font-weight: inherit; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
td.strong { font-weight: 650; }
.dot { display: inline-block; width: .7em; height: .7em; border-radius: 50%;
  margin-right: .5em; }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1.4rem; margin: .6rem 0; font-size: .9rem; }
.plots { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(300px, 1fr)); }
figure { margin: 0; background: var(--card); border-radius: 10px; padding: .8rem; min-width: 0; }
svg.plot { display: block; width: 100%; height: auto; max-width: 520px; margin: 0 auto; }
svg.plot * { stroke-linejoin: round; stroke-linecap: butt; }
figcaption { padding: .4rem .2rem 0; }
img { display: block; width: 100%; height: auto; border-radius: 4px; }
img.pixels { image-rendering: pixelated; }
.pairs { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(460px, 1fr)); }
.three { display: grid; gap: 6px; grid-template-columns: repeat(3, 1fr); }
.budgets { display: grid; gap: 10px; align-items: start;
  grid-template-columns: repeat(auto-fill, minmax(208px, 1fr)); }
.budgets figure { padding: 0; background: none; }
.budgets img { width: auto; max-width: 100%; border-radius: 0; }
.budgets img.photograph { width: 100%; max-width: 400px; }
.stage { position: relative; width: fit-content; max-width: 100%; }
.stage .over { position: absolute; inset: 0; clip-path: inset(0 calc(100% - var(--at)) 0 0); }
.stage:has(.photograph) { width: 100%; max-width: 400px; }
.pair { --at: 50%; }
.live .stage::after { content: ""; position: absolute; top: 0; bottom: 0; left: var(--at);
  width: 2px; margin-left: -1px; background: #fff; outline: 1px solid #000; }
.pair input { display: block; width: 100%; max-width: 400px; margin: .35rem 0 0;
  accent-color: var(--shown); }
.trio { display: flex; flex-wrap: wrap; gap: 10px; align-items: flex-start; margin-bottom: 1rem; }
.trio img { width: auto; max-width: 100%; border-radius: 0; }
.trio figcaption { flex: 1 1 12rem; }
.bars { padding: 1rem 1.2rem; }
.bars .row { display: grid; gap: .2rem .8rem; align-items: center; padding: .25rem 0;
  grid-template: "name track value" / 8rem minmax(0, 1fr) 7rem; }
.bars .name { grid-area: name; }
.bars .track { grid-area: track; }
.bars .value { grid-area: value; white-space: nowrap; }
.bars .track { position: relative; height: 1.5rem; background: var(--page); }
.bars .track::after { content: ""; position: absolute; top: -.3rem; bottom: -.3rem;
  left: var(--chance); border-left: 2px dashed var(--ink); }
.bars .fill { height: 100%; }
.bars .spread { position: absolute; top: calc(50% - 1px); height: 2px; background: var(--ink); }
.bars .value { font-variant-numeric: tabular-nums; text-align: right; }
.bars .fill, .dot, .bar { print-color-adjust: exact; }
.figures { width: auto; font-size: .8rem; margin-top: .3rem; }
.figures th, .figures td { padding: .05rem .35rem; border: 0; }
.figures th[scope=row] { text-align: left; padding-left: 0; }
.figures tbody tr { border: 0; }
.cluster { display: grid; gap: .3rem 1rem; align-items: center; padding: .7rem 0;
  grid-template-columns: 11rem 84px minmax(0, 1fr); border-top: 1px solid var(--line); }
.cluster img { max-width: 600px; }
.bar { height: 6px; border-radius: 3px; margin-top: .35rem; }
dl { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: .45rem 1.2rem;
  margin: .6rem 0; max-width: 52rem; }
dt { font-weight: 600; }
dd { margin: 0; }
details { background: var(--card); border-radius: 10px; padding: .7rem 1rem; margin: .8rem 0; }
summary { cursor: pointer; font-weight: 600; }
pre { overflow-x: auto; font-size: .85rem; line-height: 1.45; margin: .6rem 0; }
pre.command { background: var(--card); border-radius: 10px; padding: .8rem 1rem;
  white-space: pre-wrap; overflow-wrap: anywhere; }
@media (max-width: 640px) {
  .pairs, .plots { grid-template-columns: 1fr; }
  .cluster { grid-template-columns: 84px minmax(0, 1fr); }
  .cluster > :nth-child(3) { grid-column: 1 / -1; }
  .cluster > :first-child { grid-column: 2; grid-row: 1; }
  .bars .row { grid-template: "name value" "track track" / 1fr max-content; }
  dl { grid-template-columns: 1fr; gap: 0; }
  .scroll { padding: .5rem .7rem; }
  th, td { padding: .45rem .3rem; font-size: .9rem; }
  th:first-child, td:first-child { white-space: normal; min-width: 6.5rem; }
  dd { margin-bottom: .5rem; }
}
@media print { .pair input, .stage .over, .live .stage::after { display: none; }
  figure, .verdict { break-inside: avoid; } body { font-size: 12px; } }
"""
