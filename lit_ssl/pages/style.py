"""How pages look: on wide and narrow screens, light and dark, and on paper."""

from __future__ import annotations

__all__ = ["STYLE"]

# Colours of lines: Okabe and Ito's, which people with any kind of colour vision tell apart,
# lightened for dark grounds; lines also differ in their dashes.
STYLE = """
:root{color-scheme:light dark;--ground:#fff;--card:#f6f7f9;--ink:#1b1f24;--soft:#57606a;
--rule:#d5d9de;--link:#0b5cad;--c0:#0072b2;--c1:#c44601;--c2:#00805e;--c3:#a8447f;--c4:#9a6700;
--c5:#2f86b8;--c6:#5b5b5b;--missing:#c4002b}
@media (prefers-color-scheme:dark){:root{--ground:#14171b;--card:#1d2127;--ink:#e6e9ed;
--soft:#a3acb6;--rule:#3a414a;--link:#7cb8f7;--c0:#58b0ea;--c1:#f58a4b;--c2:#34c79b;--c3:#e08fc0;
--c4:#e6b34a;--c5:#9fd3f5;--c6:#b9bec5;--missing:#ff6b86}}
*{box-sizing:border-box}
body{margin:0;background:var(--ground);color:var(--ink);overflow-wrap:break-word;
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
main,footer{max-width:76rem;margin:0 auto;padding:1.5rem clamp(1rem,4vw,2.5rem)}
h1{font-size:1.75rem;line-height:1.2;margin:.25rem 0 .5rem}
h2{font-size:1.25rem;margin:2.25rem 0 .75rem;padding-top:.75rem;border-top:1px solid var(--rule)}
h3{font-size:1rem;margin:1.5rem 0 .5rem}
p{margin:.5rem 0;max-width:70rem}
a{color:var(--link)}
.lead,.soft,footer,dt,figcaption{color:var(--soft)}
.soft,footer,figcaption{font-size:.9rem}
nav ul{display:flex;flex-wrap:wrap;gap:.25rem 1.25rem;list-style:none;margin:.75rem 0;padding:0}
.scroll{overflow-x:auto;margin:.75rem 0}
table{border-collapse:collapse;font-variant-numeric:tabular-nums;overflow-wrap:normal}
caption{text-align:left;font-weight:600;padding:0 0 .4rem}
th,td{text-align:left;padding:.35rem .9rem;border-bottom:1px solid var(--rule);white-space:nowrap}
tr>:first-child{padding-left:.25rem}
thead th{color:var(--soft);font-weight:600;border-bottom:2px solid var(--rule)}
tbody th{font-weight:400}
.number{text-align:right}
tr.end>*{border-bottom:2px solid var(--rule)}
dl{margin:.75rem 0;display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,24rem),1fr));
gap:.5rem 2rem}
dl div{min-width:0;overflow-wrap:break-word}
dt{font-size:.85rem}
dd{margin:0}
figure{margin:0;min-width:0}
.charts{display:grid;gap:1.25rem 1.5rem;
grid-template-columns:repeat(auto-fill,minmax(min(100%,20rem),1fr))}
.chart{background:var(--card);border-radius:8px;padding:.75rem .75rem .25rem}
.chart svg:not(.swatch){width:100%;height:auto;display:block;margin-top:.25rem}
.key{display:inline-flex;align-items:center;gap:.4rem;margin-right:.9rem;color:var(--ink);
overflow-wrap:anywhere}
.swatch{width:18px;height:8px;flex:none}
.tick,.unit{font-size:11px;fill:var(--soft)}
.tick.y{text-anchor:end}
.tick.x{text-anchor:middle}
.grid{stroke:var(--rule);stroke-width:.6}
.axis{stroke:var(--soft);stroke-width:1}
.line{fill:none;stroke-width:1.8;stroke-linejoin:round;stroke-linecap:round}
.c0{--c:var(--c0)}.c1{--c:var(--c1)}.c2{--c:var(--c2)}.c3{--c:var(--c3)}
.c4{--c:var(--c4)}.c5{--c:var(--c5)}.c6{--c:var(--c6)}
.line{stroke:var(--c)}
.c1.line{stroke-dasharray:7 3}.c2.line{stroke-dasharray:2 3}.c3.line{stroke-dasharray:8 3 2 3}
.c4.line{stroke-dasharray:4 2}.c5.line{stroke-dasharray:12 4}.c6.line{stroke-dasharray:1 4}
.dot{fill:var(--c)}
.hit{fill:transparent}
.hit:hover{fill:var(--c)}
.missing{fill:var(--missing)}
.pictures{display:grid;gap:1.5rem;
grid-template-columns:repeat(auto-fill,minmax(min(100%,26rem),1fr))}
.pictures img{max-width:100%;height:auto;display:block;border-radius:4px;background:#fff}
.wide{grid-column:1/-1}
details{margin:.75rem 0;border:1px solid var(--rule);border-radius:8px;padding:.5rem .9rem}
summary{cursor:pointer}
pre{overflow-x:auto;font:13px/1.45 ui-monospace,"DejaVu Sans Mono",Menlo,monospace;
overflow-wrap:normal;margin:.75rem 0}
code{font:.92em ui-monospace,"DejaVu Sans Mono",Menlo,monospace}
:focus-visible{outline:2px solid var(--link);outline-offset:2px}
@media (max-width:40rem){th,td{padding:.35rem .5rem}tbody th{white-space:normal}}
@media print{:root{color-scheme:light;--ground:#fff;--card:#fff;--ink:#000;--soft:#444;
--rule:#bbb;--link:#000;--c0:#0072b2;--c1:#c44601;--c2:#00805e;--c3:#a8447f;--c4:#9a6700;
--c5:#2f86b8;--c6:#5b5b5b}
body{font-size:10.5pt}main,footer{max-width:none;padding:0}nav{display:none}
figure,tr{break-inside:avoid}h2,h3{break-after:avoid}.scroll{overflow:visible}
pre{white-space:pre-wrap}}
"""
