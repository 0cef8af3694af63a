// A LoRA's weight over the steps as a curve: points to drag, or to move by keys, with straight lines between them.
(() => {
  "use strict";
  const { make } = window.darkroomPanel;
  const MOST_POINTS = 64;
  const MOST_WEIGHT = 10;
  const MOST_STEPS = 1000;
  const SVG = "http://www.w3.org/2000/svg";
  const MOVES = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
  const COARSE = 0.05;
  const FINE = 0.01;
  const SHAPES = {
    "Fade in": (weight) => [[0, 0], [1, weight]],
    "Fade out": (weight) => [[0, weight], [1, 0]],
    "First half": (weight) => [[0, weight], [0.5, weight], [0.5, 0]],
    "Second half": (weight) => [[0, 0], [0.5, 0], [0.5, weight]],
  };

  const round = (number, unit) => Number((Math.round(number / unit) * unit).toFixed(4));
  const clamp = (number, low, high) => Math.min(high, Math.max(low, number));
  // Places are shares of the steps, or, where the last one is above 1, steps.
  const inSteps = (points) => points.at(-1)[0] > 1;

  // "1@0;0.5@0.5" as [[place, weight], ...]; undefined where it is none.
  const parse = (text) => {
    if (!text.includes("@")) return undefined;
    const points = text.split(/[,;]/).map((entry) => {
      const [weight, place = "1"] = entry.split("@");
      return [place, weight].map((part) => (part.trim() === "" ? NaN : Number(part)));
    });
    const good = ([place, weight]) => place >= 0 && place <= MOST_STEPS && Math.abs(weight) <= MOST_WEIGHT;
    return points.every(good) && points.length <= MOST_POINTS ? points.sort(([one], [other]) => one - other) : undefined;
  };
  const format = (points) => points.map(([place, weight]) => `${weight}@${place}`).join(";");

  const weightAt = (points, place) => {
    const behind = points.findIndex(([other]) => other > place);
    if (behind === 0) return points[0][1];
    if (behind === -1) return points.at(-1)[1];
    const [[left, low], [right, high]] = [points[behind - 1], points[behind]];
    return low + ((high - low) * (place - left)) / (right - left);
  };

  const announce = (text) => {
    const announcer = document.getElementById("darkroom-announcer");
    if (announcer) announcer.textContent = text;
  };

  // The editor of one LoRA's points. `steps` says how many steps the page has, `commit` takes the points that people
  // have made. `show` takes points from elsewhere.
  const create = ({ name, steps, commit }) => {
    let points = [[0, 1]];
    let last = 0; // the point that was touched last
    const line = document.createElementNS(SVG, "path");
    const area = document.createElementNS(SVG, "path");
    const grid = document.createElementNS(SVG, "path");
    const plot = document.createElementNS(SVG, "svg");
    for (const [path, kind] of [[grid, "grid"], [area, "area"], [line, "line"]]) path.setAttribute("class", `curve-${kind}`);
    plot.setAttribute("viewBox", "0 0 100 100");
    plot.setAttribute("preserveAspectRatio", "none");
    plot.setAttribute("aria-hidden", "true");
    plot.append(grid, area, line);
    const handles = make("div", { class: "curve-handles" });
    const labels = { top: make("span"), one: make("span"), zero: make("span"), begin: make("span"), end: make("span") };
    for (const [where, label] of Object.entries(labels)) label.className = `curve-${where}`;
    const field = make("div", { class: "curve-plot" }, plot, ...Object.values(labels), handles);

    const width = () => (inSteps(points) ? Math.max(points.at(-1)[0], steps()) : 1);
    let [low, high] = [0, 1.5];
    const scale = () => {
      const weights = points.map(([, weight]) => weight);
      low = Math.min(0, Math.floor(2 * Math.min(...weights)) / 2);
      high = Math.max(1.5, Math.ceil(2 * Math.max(...weights)) / 2);
    };
    const across = (place) => (100 * place) / width();
    const up = (weight) => (100 * (weight - low)) / (high - low);
    const describe = ([place, weight]) =>
      `weight ${weight} ${inSteps(points) ? `after step ${place}` : `at ${round(100 * place, 0.1)} % of the steps`}`;

    const draw = () => {
      const at = ([place, weight]) => `${across(place)} ${100 - up(weight)}`;
      const whole = [[0, points[0][1]], ...points, [width(), points.at(-1)[1]]].map(at).join("L");
      line.setAttribute("d", `M${whole}`);
      area.setAttribute("d", `M0 ${100 - up(0)}L${whole}L100 ${100 - up(0)}Z`);
      grid.setAttribute("d", `M0 ${100 - up(1)}H100M0 ${100 - up(0)}H100M25 0V100M50 0V100M75 0V100`);
      const texts = { top: high, one: 1, zero: 0, begin: "first step", end: inSteps(points) ? `step ${width()}` : "last step" };
      for (const [where, label] of Object.entries(labels)) label.textContent = texts[where];
      labels.one.style.bottom = `${up(1)}%`;
      labels.zero.style.bottom = `${up(0)}%`;
      points.forEach((point, index) => {
        const handle = handles.children[index];
        handle.style.left = `${across(point[0])}%`;
        handle.style.bottom = `${up(point[1])}%`;
        const said = {
          "aria-label": `Point ${index + 1} of ${points.length} of ${name}`, "aria-valuemin": low, "aria-valuemax": high,
          "aria-valuenow": point[1], "aria-valuetext": describe(point), title: describe(point),
        };
        for (const [attribute, value] of Object.entries(said)) handle.setAttribute(attribute, value);
      });
    };
    const rebuild = () => {
      last = clamp(last, 0, points.length - 1);
      handles.replaceChildren(...points.map((_, index) => handleOf(index)));
      remove.disabled = points.length === 1;
      add.disabled = points.length === MOST_POINTS;
      scale();
      draw();
    };
    const focus = (index) => {
      last = index;
      handles.children[index].focus();
    };

    // Places stay in their order, and steps stay steps: the last of them says that they are.
    const move = (index, [place, weight]) => {
      const unit = inSteps(points) ? 1 : FINE;
      const left = points[index - 1]?.[0] ?? 0;
      const right = points[index + 1]?.[0] ?? (inSteps(points) ? MOST_STEPS : 1);
      const lowest = inSteps(points) && index === points.length - 1 ? Math.max(left, 2) : left;
      const moved = [clamp(round(place, unit), lowest, right), clamp(round(weight, FINE), -MOST_WEIGHT, MOST_WEIGHT)];
      points[index] = moved;
    };
    const insert = (place, weight) => {
      if (points.length === MOST_POINTS) return;
      const unit = inSteps(points) ? 1 : FINE;
      const point = [clamp(round(place, unit), 0, width()), clamp(round(weight, FINE), -MOST_WEIGHT, MOST_WEIGHT)];
      const behind = points.findIndex(([other]) => other > point[0]);
      const index = behind === -1 ? points.length : behind;
      points.splice(index, 0, point);
      rebuild();
      focus(index);
      announce(`Point added: ${describe(point)}`);
      commit(points);
    };
    const insertAfter = (index) => {
      const [left, right] = index < points.length - 1 ? [points[index][0], points[index + 1][0]] : [points[index][0], width()];
      const [from, to] = left < right ? [left, right] : [points[index - 1]?.[0] ?? 0, left];
      insert((from + to) / 2, weightAt(points, (from + to) / 2));
    };
    const drop = (index) => {
      if (points.length === 1) {
        announce("The last point stays.");
        return;
      }
      const [gone] = points.splice(index, 1);
      rebuild();
      focus(Math.min(index, points.length - 1));
      announce(`Point removed: ${describe(gone)}`);
      commit(points);
    };

    const placeOf = ({ clientX, clientY }) => {
      const box = plot.getBoundingClientRect();
      return [
        clamp((clientX - box.left) / box.width, 0, 1) * width(),
        low + clamp((box.bottom - clientY) / box.height, 0, 1) * (high - low),
      ];
    };
    const handleOf = (index) => {
      const handle = make("button", { type: "button", role: "slider", class: "curve-point" });
      let held = false;
      handle.addEventListener("focus", () => (last = index));
      handle.addEventListener("pointerdown", (event) => {
        if (event.button !== 0) return;
        handle.setPointerCapture(event.pointerId);
        handle.focus();
        held = true;
      });
      handle.addEventListener("pointermove", (event) => {
        if (!held) return;
        move(index, placeOf(event));
        draw();
      });
      for (const end of ["pointerup", "pointercancel"]) {
        handle.addEventListener(end, () => {
          if (!held) return;
          held = false;
          scale();
          draw();
          commit(points);
        });
      }
      handle.addEventListener("keydown", (event) => {
        if (event.ctrlKey || event.metaKey || event.altKey) return;
        const [right, above] = MOVES[event.key] ?? [0, 0];
        if (right || above) {
          const step = event.shiftKey ? FINE : COARSE;
          const [place, weight] = points[index];
          move(index, [place + right * (inSteps(points) ? 1 : step), weight + above * step]);
          scale();
          draw();
          commit(points);
        } else if (event.key === "Enter") {
          insertAfter(index);
        } else if (event.key === "Delete" || event.key === "Backspace") {
          drop(index);
        } else {
          return;
        }
        event.preventDefault();
      });
      return handle;
    };
    field.addEventListener("dblclick", (event) => {
      if (!event.target.closest(".curve-point")) insert(...placeOf(event));
    });

    const act = (label, run) => {
      const button = make("button", { type: "button", "aria-label": `${label}: ${name}` }, label);
      button.addEventListener("click", run);
      return button;
    };
    const add = act("Add point", () => insertAfter(last));
    const remove = act("Remove point", () => drop(last));
    const shapes = Object.entries(SHAPES).map(([label, shape]) =>
      act(label, () => {
        const weights = points.map(([, weight]) => weight);
        points = shape(weights.find((weight) => Math.abs(weight) === Math.max(...weights.map(Math.abs))) || 1);
        rebuild();
        announce(`${label}: ${points.map(describe).join(", ")}`);
        commit(points);
      }),
    );
    const help = "Drag a point, or move it with the arrow keys, with Shift in fine steps. A double click or Enter adds one, Delete removes it.";
    const element = make(
      "div", { class: "curve", role: "group", "aria-label": `Curve of ${name}`, title: help },
      field, make("div", { class: "curve-tools" }, add, remove, ...shapes),
    );
    const show = (given) => {
      points = given.map((point) => [...point]);
      rebuild();
    };
    return { element, show, focus };
  };

  window.darkroomCurve = { parse, format, create };
})();
