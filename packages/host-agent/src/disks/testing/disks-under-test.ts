/** Which disks tests give to VMs: qcow2, which works everywhere, unless `WRENN_DISKS` names others. */
import { z } from "zod";
import { diskChoices } from "../choice.ts";

export const disksUnderTest = z.enum(diskChoices).default("qcow2").parse(process.env["WRENN_DISKS"]);
