export const plans = ["Primary Care", "Kidney Care"];
