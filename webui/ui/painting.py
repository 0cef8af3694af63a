"""The painter's place on a page; ``static/painter.js`` paints in it."""

PAINTER = """
<div class="painter empty" data-page="{page}"{marks}>
  <div class="painter-tools" role="toolbar" aria-label="Mask tools">
    <button type="button" data-tool="brush" aria-pressed="true">Brush</button>
    <button type="button" data-tool="eraser" aria-pressed="false">Eraser</button>
    <button type="button" data-tool="lasso" aria-pressed="false" title="Draw around a part (L)">Lasso</button>
    <button type="button" data-tool="pick" aria-pressed="false"
      title="Click on a thing to mask it. With Shift it is taken out (P)">Pick</button>
    <label class="painter-size">Size
      <input type="range" min="2" max="200" value="32" aria-label="Brush size in px"></label>
    <label class="painter-finds" hidden>Find by
      <select><option value="colour">colour</option></select></label>
    <button type="button" data-act="out" aria-pressed="false" hidden title="As with Shift">Take out</button>
    <button type="button" data-act="next" hidden title="The next click begins another thing (N)">Next thing</button>
    <label class="painter-tolerance" hidden>Tolerance
      <input type="range" min="1" max="100" value="25" aria-label="How far colours may differ"></label>
    <button type="button" data-act="undo">Undo</button>
    <button type="button" data-act="redo">Redo</button>
    <button type="button" data-act="clear">Clear</button>
    <button type="button" data-act="zoom-out" aria-label="Zoom out">−</button>
    <span class="painter-zoom" aria-live="polite">100 %</span>
    <button type="button" data-act="zoom-in" aria-label="Zoom in">+</button>
  </div>
  <p class="painter-note" role="status"></p>
  <div class="painter-stage"><div class="painter-sheet">
    <img alt="" draggable="false">
    <canvas width="1" height="1" tabindex="0" role="img" aria-label="Mask. Arrow keys move the brush, Space paints,
      Shift with arrows paints a line, [ and ] change the size, B is the brush, E the eraser,
      P picks a thing at each Space, N begins another thing, Control Z undoes,
      Control Shift Z does it again, Delete clears."></canvas>
    <div class="painter-ring" hidden></div>
  </div></div>
</div>
"""


def painter(page: str, of_its_own: bool = False) -> str:
    """HTML of a painter that scripts know by this name; one ``of_its_own`` paints on no start picture that is kept."""
    return PAINTER.format(page=page, marks=" data-own" if of_its_own else "")
