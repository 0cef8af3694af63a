"""The frame of the fold with regions; ``static/regions.js`` fills it."""

FRAME = """
<div class="panel regions" data-page="{page}" data-group="{group}" data-most="{most}" data-fields="{fields}">
  <div class="regions-canvas" role="group" aria-label="Regions on the picture. Drag over a free place to draw a box.">
    <img alt="" hidden draggable="false"><div class="regions-ghost" hidden></div>
  </div>
  <p class="panel-note regions-rest" role="status"></p>
  <div class="regions-acts">
    <button type="button" data-act="add">Add a box</button>
    <button type="button" data-act="paint">Paint a mask</button>
  </div>
  <ol aria-label="{title}"></ol>
  <div class="regions-painter">
    {painter}
    <div class="regions-acts">
      <button type="button" data-act="done">Use this mask</button>
      <button type="button" data-act="leave">Cancel</button>
    </div>
  </div>
  <p class="panel-note">{note}</p>
</div>
"""
