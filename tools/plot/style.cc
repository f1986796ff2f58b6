#include "tools/plot/style.h"

namespace plait::plot {

// Colours of kinds (k) and curves (s, t) are those of Okabe and Ito, which colour-blind readers tell apart,
// darkened or lightened for contrast; shapes tell kinds apart without them.
const char* style_sheet() {
  return R"css(
:root {
  --paper: #fffdf9; --ink: #1c1b19; --soft: #5f5b54; --hair: #e4dfd6; --line: #8d877d; --box: #f5f1e9; --alarm: #a3260f;
  --c0: #0067a6; --c1: #c14f00; --c2: #00805d; --c3: #a8558a; --c4: #946600; --c5: #5b46a0; --c6: #57534d; --c7: #2d7f9d;
  --w0: #fdeadb; --w1: #fbd3b4; --w2: #f7b586; --w3: #ee9157; --w4: #d96a2b; --w5: #b04a12; --w6: #7c300a;
  --b0: #e0edf6; --b1: #c0dbee; --b2: #93c1e0; --b3: #5fa2cf; --b4: #3382b8; --b5: #18639a; --b6: #0b4573;
  color-scheme: light dark;
}
@media (prefers-color-scheme: dark) { :root {
  --paper: #171614; --ink: #ece8e1; --soft: #a8a299; --hair: #34312d; --line: #7d776e; --box: #211f1c; --alarm: #ff9478;
  --c0: #5cb3ea; --c1: #f08b4c; --c2: #3fc49c; --c3: #dd97c2; --c4: #e2b04a; --c5: #a99ae6; --c6: #b5afa6; --c7: #7cc7df;
  --w0: #33231a; --w1: #52301c; --w2: #7a431f; --w3: #a65a27; --w4: #d07838; --w5: #f0a062; --w6: #ffd3a8;
  --b0: #18242e; --b1: #1d3547; --b2: #234c68; --b3: #2d688f; --b4: #3f89b8; --b5: #6bb0da; --b6: #b0daf3;
} }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 17px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Liberation Sans", Arial, sans-serif; }
main { max-width: 752px; margin: 0 auto; padding: 40px 16px 64px; }
h1, h2 { font-family: "Iowan Old Style", Charter, Georgia, "Liberation Serif", "Times New Roman", serif;
  font-weight: 700; line-height: 1.2; margin: 0; text-wrap: balance; overflow-wrap: anywhere; }
h1 { font-size: 40px; letter-spacing: -0.01em; }
h2 { font-size: 25px; margin-bottom: 12px; }
h3 { font-size: 16px; margin: 28px 0 8px; }
p { margin: 0 0 12px; overflow-wrap: anywhere; }
.kicker { font-size: 13px; font-weight: 700; letter-spacing: 0.06em; text-transform: uppercase; color: var(--soft); margin: 0 0 6px; }
.deck { font-size: 20px; line-height: 1.45; color: var(--soft); margin: 14px 0 24px; }
.fine, figcaption { font-size: 13px; line-height: 1.5; color: var(--soft); }
section { border-top: 1px solid var(--hair); margin-top: 44px; padding-top: 20px; }
nav { font-size: 14px; line-height: 1.9; margin: 20px 0 0; }
nav a { margin-right: 14px; white-space: nowrap; }
a { color: var(--c0); text-underline-offset: 2px; }
.how { font-size: 14px; line-height: 1.5; background: var(--box); padding: 12px 14px; margin: 22px 0 0; }
.alarm { border-left: 4px solid var(--alarm); background: var(--box); padding: 10px 14px; margin: 16px 0; }
.alarm strong { color: var(--alarm); }
figure { margin: 22px 0; }
figure svg { display: block; max-width: 100%; height: auto; overflow: visible; }
figcaption { margin-top: 8px; }
.narrow { display: none; }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(320px, 1fr)); gap: 24px 30px; }
.key { list-style: none; padding: 0; margin: 10px 0 0; display: flex; flex-wrap: wrap; gap: 4px 18px; font-size: 14px; }
.key svg { display: inline-block; vertical-align: -2px; margin-right: 6px; }
.key span { color: var(--soft); }
svg text { font-size: 12px; fill: var(--ink); }
svg .muted { fill: var(--soft); }
svg .strong { font-weight: 600; font-size: 13px; } svg .bold { font-weight: 600; }
svg .number { font-variant-numeric: tabular-nums; }
svg .halo { paint-order: stroke; stroke: var(--paper); stroke-width: 3px; stroke-linejoin: round; }
svg path, svg rect { fill: none; stroke: none; }
svg .grid { display: inline; stroke: var(--hair); }
svg .zero { stroke: var(--line); }
svg .tick { stroke: var(--line); }
svg .link { stroke: var(--line); stroke-dasharray: 2 3; }
svg .front { stroke: var(--line); stroke-width: 1.2; }
svg .curve { stroke-width: 1.8; stroke-linejoin: round; }
svg .band { opacity: 0.16; }
svg .mark { stroke-width: 1.5; }
svg .mark.hollow { fill: var(--paper); }
svg .cross { stroke: var(--ink); stroke-width: 1.6; }
svg .interval { stroke-width: 2.2; opacity: 0.7; }
svg .soft { opacity: 0.4; }
svg .arrow { fill: var(--ink); }
svg .gone { fill: var(--line); opacity: 0.45; }
svg .empty { fill: var(--box); }
svg .draws { fill: var(--line); opacity: 0.5; }
svg .draws-0 { fill: var(--c0); opacity: 0.75; }
svg .target { stroke: var(--c1); stroke-width: 2.5; }
svg .target-band { fill: var(--c1); opacity: 0.18; }
svg .target-text { fill: var(--c1); font-weight: 700; }
)css"
         R"css(
svg .mark.k0 { stroke: var(--c0); } svg .mark.k1 { stroke: var(--c1); } svg .mark.k2 { stroke: var(--c2); }
svg .mark.k3 { stroke: var(--c3); } svg .mark.k4 { stroke: var(--c4); } svg .mark.k5 { stroke: var(--c5); }
svg .mark.k6 { stroke: var(--c6); } svg .mark.k7 { stroke: var(--c7); }
svg .mark.k0:not(.hollow), svg .fill.k0 { fill: var(--c0); } svg .mark.k1:not(.hollow), svg .fill.k1 { fill: var(--c1); }
svg .mark.k2:not(.hollow), svg .fill.k2 { fill: var(--c2); } svg .mark.k3:not(.hollow), svg .fill.k3 { fill: var(--c3); }
svg .mark.k4:not(.hollow), svg .fill.k4 { fill: var(--c4); } svg .mark.k5:not(.hollow), svg .fill.k5 { fill: var(--c5); }
svg .mark.k6:not(.hollow), svg .fill.k6 { fill: var(--c6); } svg .mark.k7:not(.hollow), svg .fill.k7 { fill: var(--c7); }
svg .interval.k0 { stroke: var(--c0); } svg .interval.k1 { stroke: var(--c1); } svg .interval.k2 { stroke: var(--c2); }
svg .interval.k3 { stroke: var(--c3); } svg .interval.k4 { stroke: var(--c4); } svg .interval.k5 { stroke: var(--c5); }
svg .interval.k6 { stroke: var(--c6); } svg .interval.k7 { stroke: var(--c7); }
svg .curve.s0 { stroke: var(--c0); } svg .curve.s1 { stroke: var(--c1); } svg .curve.s2 { stroke: var(--c2); }
svg .curve.s3 { stroke: var(--c3); } svg .curve.s4 { stroke: var(--c4); } svg .curve.s5 { stroke: var(--c5); }
svg .curve.s6 { stroke: var(--c6); }
svg .band.s0 { fill: var(--c0); } svg .band.s1 { fill: var(--c1); } svg .band.s2 { fill: var(--c2); }
svg .band.s3 { fill: var(--c3); } svg .band.s4 { fill: var(--c4); } svg .band.s5 { fill: var(--c5); }
svg .band.s6 { fill: var(--c6); }
svg .t0 { fill: var(--c0); } svg .t1 { fill: var(--c1); } svg .t2 { fill: var(--c2); } svg .t3 { fill: var(--c3); }
svg .t4 { fill: var(--c4); } svg .t5 { fill: var(--c5); }
svg .w0 { fill: var(--w0); } svg .w1 { fill: var(--w1); } svg .w2 { fill: var(--w2); } svg .w3 { fill: var(--w3); }
svg .w4 { fill: var(--w4); } svg .w5 { fill: var(--w5); } svg .w6 { fill: var(--w6); }
svg .b0 { fill: var(--b0); } svg .b1 { fill: var(--b1); } svg .b2 { fill: var(--b2); } svg .b3 { fill: var(--b3); }
svg .b4 { fill: var(--b4); } svg .b5 { fill: var(--b5); } svg .b6 { fill: var(--b6); }
details { margin: 14px 0; font-size: 14px; }
summary { cursor: pointer; color: var(--c0); padding: 4px 0; }
.scroll { overflow-x: auto; max-height: 480px; overflow-y: auto; border: 1px solid var(--hair); margin: 8px 0; }
table { border-collapse: collapse; font-size: 13px; line-height: 1.4; width: 100%; }
th, td { text-align: left; padding: 5px 10px; border-bottom: 1px solid var(--hair); white-space: nowrap; font-weight: 400; }
thead th { position: sticky; top: 0; background: var(--box); font-weight: 600; }
.number { text-align: right; font-variant-numeric: tabular-nums; }
th.number { text-align: right; }
.checks { list-style: none; padding: 0; margin: 0; }
.checks li { display: grid; grid-template-columns: 46px 1fr; padding: 6px 0; border-bottom: 1px solid var(--hair); }
.checks .failed { color: var(--alarm); font-weight: 700; }
.checks p { margin: 0; }
dl { display: grid; grid-template-columns: minmax(120px, 190px) 1fr; gap: 4px 16px; font-size: 14px; margin: 0; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
pre { margin: 0; padding: 8px 10px; }
code, pre { font: 13px/1.5 ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; }
@media screen and (max-width: 751px) {
  main { padding-top: 24px; }
  h1 { font-size: 31px; } h2 { font-size: 22px; } .deck { font-size: 18px; }
  .wide { display: none; } .narrow { display: block; }
  .grid { grid-template-columns: minmax(0, 1fr); }
  dl { grid-template-columns: minmax(0, 1fr); } dd { margin-bottom: 8px; }
}
@media print {
  :root { --paper: #fff; --ink: #000; --soft: #444; --hair: #ccc; --line: #777; --box: #f3f3f3; --alarm: #900;
    --c0: #0067a6; --c1: #c14f00; --c2: #00805d; --c3: #a8558a; --c4: #946600; --c5: #5b46a0; --c6: #57534d; --c7: #2d7f9d;
    --w0: #fdeadb; --w1: #fbd3b4; --w2: #f7b586; --w3: #ee9157; --w4: #d96a2b; --w5: #b04a12; --w6: #7c300a;
    --b0: #e0edf6; --b1: #c0dbee; --b2: #93c1e0; --b3: #5fa2cf; --b4: #3382b8; --b5: #18639a; --b6: #0b4573; }
  body { font-size: 10.5pt; print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  main { max-width: none; padding: 0; }
  nav, details { display: none; }
  h1, h2, .kicker { break-after: avoid; }
  figure { break-inside: avoid; }
  .scroll { overflow: visible; max-height: none; border: 0; }
}
)css";
}

}  // namespace plait::plot
