"""A Slurm of one node on this machine, in one folder: python tests/studies/slurm_node.py start FOLDER, or stop FOLDER.

It needs the daemons of Debian's packages slurm-wlm and munge, no right to change the machine, and no accounting."""

import contextlib
import os
import pwd
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

PATH = f"{os.environ['PATH']}:/usr/sbin"  # where Debian has daemons, which is not on everybody's path
DAEMONS = ("slurmstepd", "slurmd", "slurmctld", "munged")  # in the order in which they are stopped
# Slots and memory are what two jobs of the profile and two that wait for them ask for, whatever the machine has.
CONFIG = """
ClusterName=one
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
KillWait=2
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SlurmdParameters=config_overrides
NodeName=one NodeHostname={host} NodeAddr=127.0.0.1 CPUs=4 RealMemory=16000
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def missing():
    """The programs that this machine lacks."""
    return [name for name in ("munged", "slurmctld", "slurmd", "sbatch") if not shutil.which(name, path=PATH)]


def environment(folder):
    """The variables with which every command of Slurm finds the node.

    Within a job, Snakemake takes away what begins with SLURM_ before it calls srun: one that knows stands first."""
    return {"SLURM_CONF": f"{folder}/slurm.conf", "PATH": f"{folder}/bin:{PATH}"}


def slurm(folder, *command):
    """What a command says to the node."""
    known = os.environ | environment(folder)
    return subprocess.run(command, env=known, check=True, capture_output=True, text=True).stdout


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def until(holds, seconds):
    """Whether something comes to hold within these seconds."""
    end = time.monotonic() + seconds
    while not (held := holds()) and time.monotonic() < end:
        time.sleep(0.05)
    return held


def idle(folder):
    try:
        return slurm(folder, "sinfo", "--noheader", "--format=%T").strip() == "idle"
    except subprocess.CalledProcessError:
        return False


def start(folder):
    """Start it in a new folder and wait until its node is idle."""
    folder = Path(folder).resolve()
    for name in ("state", "spool", "bin"):
        (folder / name).mkdir(parents=True)
    host = socket.gethostname().partition(".")[0]
    values = {"folder": folder, "host": host, "user": pwd.getpwuid(os.getuid()).pw_name, "ports": free_ports(2)}
    (folder / "slurm.conf").write_text(CONFIG.format(**values))
    srun = folder / "bin" / "srun"
    srun.write_text(f'#!/bin/sh\nSLURM_CONF={shlex.quote(str(folder))}/slurm.conf exec {shutil.which("srun")} "$@"\n')
    srun.chmod(0o755)
    key = folder / "munge.key"
    key.touch(0o600)
    key.write_bytes(secrets.token_bytes(128))
    files = {"key-file": key.name, "seed-file": "munged.seed", "pid-file": "munged.pid", "log-file": "munged.log"}
    paths = [f"--{name}={folder / file}" for name, file in (files | {"socket": "munge.socket"}).items()]
    slurm(folder, "munged", "--force", *paths)  # whoever else may look into the folder
    slurm(folder, "slurmctld")
    slurm(folder, "slurmd", "-N", "one")
    if not until(lambda: idle(folder), seconds=60):
        raise RuntimeError("\n".join(path.read_text()[-3000:] for path in sorted(folder.glob("*.log"))))


def processes(folder, name):
    """The numbers of the processes of this name that know the node."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended, or is somebody else's
            known = f"SLURM_CONF={folder}/slurm.conf".encode() in (entry / "environ").read_bytes().split(b"\0")
            if known and (entry / "comm").read_text().strip() == name:
                found.append(int(entry.name))
    return found


def stop(folder):
    """Cancel its jobs and stop its daemons, whatever state they are in."""
    folder = Path(folder).resolve()
    with contextlib.suppress(subprocess.CalledProcessError):
        if numbers := slurm(folder, "squeue", "--noheader", "--format=%i").split():
            slurm(folder, "scancel", *numbers)
        until(lambda: idle(folder), seconds=20)
    for name in DAEMONS:
        for kill in (signal.SIGTERM, signal.SIGKILL):
            for number in processes(folder, name):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(number, kill)
            if until(lambda name=name: not processes(folder, name), seconds=10):
                break


if __name__ == "__main__":
    {"start": start, "stop": stop}[sys.argv[1]](sys.argv[2])
