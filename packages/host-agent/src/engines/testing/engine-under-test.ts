/** Which engine tests run VMs with: the emulated one, which works everywhere, unless `WRENN_ENGINE` names another. */
import { z } from "zod";
import { engineChoices } from "../choose.ts";

export const engineUnderTest = z.enum(engineChoices).default("tcg").parse(process.env["WRENN_ENGINE"]);
