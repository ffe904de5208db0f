const settings = SETTINGS;
const { plans } = await import("PLANS");
document.getElementById("root").textContent = `${plans.length} plans, version ${settings.version}`;
