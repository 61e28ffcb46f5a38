for (const [number, pair] of document.querySelectorAll(".pair").entries()) {
  const clean = document.getElementById(pair.dataset.clean).cloneNode();
  clean.removeAttribute("id");
  clean.alt = "";
  clean.className += " over";
  const range = document.createElement("input");
  range.type = "range";
  range.id = "slider" + number;
  range.setAttribute("aria-label", "how much of the clean picture is shown, from the left");
  range.addEventListener("input", () => pair.style.setProperty("--at", range.value + "%"));
  pair.querySelector(".stage").append(clean);
  pair.append(range);
  pair.classList.add("live");
}
