/** Which disks tests give to VMs: qcow2, which works everywhere, unless `WRENN_DISKS` names others. */
import { z } from "zod";
import { chooseDisks, diskChoices } from "../choice.ts";

const choice = z.enum(diskChoices).default("qcow2").parse(process.env["WRENN_DISKS"]);

export const { format: disksUnderTest } = await chooseDisks(choice);
