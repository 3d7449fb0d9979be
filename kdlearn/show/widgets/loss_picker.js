start("loss_picker", (live, data) => {
  const ticks = add(live, "div", { class: "kd-ticks", role: "group", "aria-label": "What you have" });
  const boxes = data.have.map(([key, title]) => ({ key, box: tick(ticks, title, data.start.includes(key), draw) }));
  const line = add(live, "p", { class: "kd-line", "aria-live": "polite" });
  const list = add(live, "ul", { class: "kd-list" });
  const items = data.losses.map(({ name, summary, cost, needs }) => {
    const node = add(list, "li", {});
    add(node, "code", {}, name);
    add(node, "div", {}, summary);
    if (cost) add(node, "div", { class: "kd-note" }, cost);
    return { node, needs };
  });

  function draw() {
    const have = boxes.filter(({ box }) => box.checked).map(({ key }) => key);
    let fit = 0;
    items.forEach(({ node, needs }) => {
      node.hidden = !needs.every((key) => have.includes(key));
      fit += !node.hidden;
    });
    line.textContent = fit + " of " + items.length + (fit === 1 ? " loss asks" : " losses ask") + " for no more than you have.";
  }
  draw();
});
