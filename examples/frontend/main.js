const settings = SETTINGS;
const SECONDS = 3;

function put(id, text) {
  document.getElementById(id).textContent = text;
}

function short(version) {
  return /^[0-9a-f]{40}$/.test(version) ? version.slice(0, 7) : version;
}

function told(version) {
  if (!version) return ["gone", "The back end does not answer."];
  if (version === settings.version) return ["same", "Front end and back end are the same version."];
  return ["differ", "The versions differ: a release is going on, or this page is an old one. Reload it."];
}

async function look() {
  let version = "";
  try {
    const answer = await fetch("/api/v1/healthcheck", { cache: "no-store" });
    version = (await answer.json()).version;
  } catch {
    // It may be between two tasks: the next look tells.
  }
  const [state, text] = told(version);
  document.body.dataset.state = state;
  put("backend", short(version) || "–");
  put("state", text);
}

async function show() {
  // Loaded when it is needed, which may be after a newer release.
  const { plans } = await import("PLANS");
  document.getElementById("plans").replaceChildren(...plans.map((plan) => {
    const item = document.createElement("li");
    item.textContent = plan;
    return item;
  }));
}

put("frontend", short(settings.version));
document.getElementById("show").addEventListener("click", show);
document.addEventListener("visibilitychange", () => document.hidden || look());
setInterval(() => document.hidden || look(), SECONDS * 1000);
look();
