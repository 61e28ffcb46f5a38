"""The look of the page: light or dark as the reader's system is, and narrow screens."""

CSS = """
:root { color-scheme: light dark; --ink: #1d2530; --soft: #5b6674; --line: #d9dee5;
  --page: #f6f7f9; --card: #ffffff; --shown: #2e8b57; --not: #cf3f5b; --unknown: #8b929c; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8ee; --soft: #9aa5b4; --line: #353d49;
  --page: #14181e; --card: #1c2129; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, "Segoe UI", Roboto, Helvetica, Arial, sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { font-size: 1rem; font-weight: 600; color: var(--soft); margin: 0 0 1rem; }
h2 { font-size: 1.2rem; margin: 2.75rem 0 .6rem; }
p { max-width: 46rem; margin: .6rem 0; overflow-wrap: anywhere; }
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
.cluster { display: grid; gap: .3rem 1rem; align-items: center; padding: .7rem 0;
  grid-template-columns: 11rem 84px minmax(0, 1fr); border-top: 1px solid var(--line); }
.cluster img { max-width: 600px; }
.bar { height: 6px; border-radius: 3px; margin-top: .35rem; }
dl { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: .45rem 1.2rem;
  margin: .6rem 0; max-width: 52rem; }
dt { font-weight: 600; }
dd { margin: 0; overflow-wrap: anywhere; }
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
  dl { grid-template-columns: 1fr; gap: 0; }
  dd { margin-bottom: .5rem; }
}
"""
