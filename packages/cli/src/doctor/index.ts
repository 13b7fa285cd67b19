/** What the command line uses of the doctor. */
export { type Check, type CheckStatus, type DoctorReport } from "./check.ts";
export { runDoctor } from "./doctor.ts";
export { renderDoctorReport } from "./render.ts";
