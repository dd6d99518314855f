"""A full disk: small file systems in memory, so small that packing or training does not fit.  The command ends with a
sentence, what was there before stays, and with more room it goes on to the numbers of a run that had room."""
from common import *

if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "none", WORK + "/"], stderr=subprocess.DEVNULL).returncode:
    skip("full disks: a tmpfs can only be mounted by root")
    end()
subprocess.run(["umount", WORK])
data = write_log(work("log"))
first = train(data, work("whole"))
check("a run with room", first.code == 0, first)
expected = run_content(work("whole"))
sizes = range(16, 400, 12) if arguments.long else (24, 64, 120, 200)
for kilobytes in sizes:
    disk = work(f"disk{kilobytes}")
    os.mkdir(disk)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "none", disk], check=True)
    try:
        out = os.path.join(disk, "run")
        small = train(data, out)
        check(f"{kilobytes} kB: trains, or is refused", small.code == 0 or (refused(small) and "space" in small.err), small)
        subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
        if small.code != 0:
            resume = ["--resume"] if os.path.exists(os.path.join(out, "config.json")) else []
            more = train(data, out, *resume)
            if check(f"{kilobytes} kB: goes on with more room", more.code == 0, more):
                got = run_content(out)
                check(f"{kilobytes} kB: the same weights", got["best"] == expected["best"])
                check(f"{kilobytes} kB: the same result", got["result"] == expected["result"], got["result"])
        packed = os.path.join(disk, "log")
        subprocess.run(["rm", "-rf", out])
        write_log(packed)
        subprocess.run(["mount", "-o", f"remount,size={kilobytes + 60}k", disk])
        prepared = mixrec("prepare", packed)
        check(f"{kilobytes} kB: packs, or is refused", prepared.code == 0 or refused(prepared), prepared)
        if prepared.code != 0:
            left = os.listdir(os.path.join(packed, ".mixrec")) if os.path.exists(os.path.join(packed, ".mixrec")) else []
            check(f"{kilobytes} kB: nothing half packed is left", not [n for n in left if n.startswith("packed-")], left)
    finally:
        subprocess.run(["umount", disk])
end()
