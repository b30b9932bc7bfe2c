"""Trials: what an operator does, as docs/operations.md says."""

import json
import time

from machines import Failed, run, say, wait_for
from scenario import INTRODUCER, MEMBER

REFUSED = 6
PERMISSION_DENIED = 13
READER = """
from idunno_model_server.api import BatchModel

class Reader(BatchModel):
    def predict(self, inputs):
        return [self.read(str(row, "utf-8")) for row in inputs]

    def read(self, path):
        try:
            open(path or __file__, "rb").read(1)
        except OSError as error:
            return error.errno

    def canary(self):
        return b""
"""


def upgrade(scene):
    """A rolling upgrade: one machine at a time, and the next when the last one works again."""
    since = time.monotonic()
    for machine in [scene.introducer, *scene.members]:
        unit = scene.unit_of(machine)
        main = machine.unit(unit, "MainPID")
        machine.command("dpkg", "--install", f"/packages/{scene.packages[1]}", timeout_s=180)
        version = machine.command("dpkg-query", "--show", "--showformat=${Version}", "idunno")
        if "+next" not in version or machine.unit(unit, "MainPID") == main:
            raise Failed(f"{machine.name} was not upgraded: {version}")
        if machine.unit(unit, "ActiveState") != "active":
            raise Failed(f"{unit} on {machine.name} is {machine.unit(unit, 'ActiveState')}")
        scene.wait_working(machine)
        say(f"{machine.name} has {version}")
    scene.package = scene.packages[1]
    scene.note("upgrade_s", since)


def package(scene):
    """A model is added as a package, and another is trained on texts: the model servers' user reads what its member
    gives to it, and nothing else of the member."""
    cluster, folder = scene.cluster, scene.cluster.folder / "reader"
    folder.mkdir()
    (folder / "model.py").write_text(READER)
    rows = [("", None), ("/var/lib/idunno/metadata.redb", PERMISSION_DENIED)]
    rows += [("/etc/idunno/secret.pem", PERMISSION_DENIED), ("/var/log/idunno", PERMISSION_DENIED)]
    place = folder.with_name("rows.jsonl")
    place.write_text("".join(json.dumps({"input": path, "id": error}) + "\n" for path, error in rows * 25))
    since = time.monotonic()
    cluster.idunno("model", "add", folder)
    cluster.idunno("put", place, place.name)
    job = cluster.idunno("add-job", "reader", "--dataset", place.name, "--batch-size", 4)["job"]
    cluster.idunno("start-job", job, "--wait")
    results = folder.with_name("reader.jsonl")
    cluster.idunno("get-job-results", job, results)
    found = [json.loads(line) for line in results.read_text().splitlines()]
    wrong = [row for row in found if row.get("output") != row.get("id")]
    if wrong or len(found) != len(rows) * 25:
        raise Failed(f"{len(found)} rows, and what a model may read is not as it should be: {wrong[:1]}")
    scene.note("package_added_and_run_s", since)
    texts = "".join(f"text number {number},{'even' if number % 2 == 0 else 'odd'}\n" for number in range(40))
    place = folder.with_name("texts.csv")
    place.write_text(f"input,label\n{texts}")
    cluster.idunno("put", place, place.name)
    cluster.idunno("train-start", "newsgroups-linear", "--dataset", place.name, "--wait")


def roles(scene):
    """A viewer may look, and a stranger may do nothing. All other trials use an operator's identity."""
    cluster = scene.cluster
    viewer = cluster.issue("viewer")
    cluster.idunno("status", identity=viewer)
    must_be_refused(scene, viewer, "viewer", "set-policy", "rate")
    secret = cluster.folder / "stranger-secret.pem"
    cluster.idunno("cluster", "init", "--out", secret)
    stranger = cluster.issue("operator", secret)
    for identity in (stranger, cluster.in_good_faith(stranger)):
        must_be_refused(scene, identity, "another cluster's", "status")


def must_be_refused(scene, identity, reason, *words):
    """Fails unless every member refuses an identity's request for this reason."""
    for member in scene.members:
        code, said = scene.cluster.idunno(*words, identity=identity, members=[member], check=False)
        if code != REFUSED or reason not in said:
            raise Failed(f"{member.name} answered `{' '.join(words)}` of {identity.name} with {code}: {said.strip()}")


def rotate(scene):
    """Replaces the key of the secret: each of the three steps reaches every machine before the next one."""
    since, cluster = time.monotonic(), scene.cluster
    before = cluster.identity
    for step in ("add", "sign", "drop"):
        cluster.idunno("cluster", "rotate", step, "--secret", cluster.secret)
        for machine in [scene.introducer, *scene.members]:
            scene.hand_secret(machine)
            machine.command("systemctl", "restart", scene.unit_of(machine))
            scene.wait_working(machine)
        if step == "add":
            cluster.identity = cluster.issue("operator")
        say(f"every process has the secret after `rotate {step}`")
    scene.note("rotate_s", since)
    for identity in (before, cluster.in_good_faith(before)):
        must_be_refused(scene, identity, "another cluster's", "status")


def introducer_forgets(scene):
    """The introducer loses its file: members contact it regularly, and tell it of their cluster."""
    place = "/var/lib/idunno-introducer/introducer.json"
    founder = json.loads(scene.introducer.command("cat", place))["founder"]
    scene.introducer.shell(f"systemctl stop {INTRODUCER}; rm {place}; systemctl start {INTRODUCER}")
    since = time.monotonic()
    known = wait_for("it learns", lambda: json.loads(scene.introducer.command("cat", place)), 60)
    scene.note("introducer_learns_s", since)
    if known["founder"] != founder:
        raise Failed(f"the introducer took {known['founder']} for the founder, which is {founder}")


def replace(scene):
    """A machine is permanently lost, with its disk; an empty one takes its name and address."""
    machine = scene.other()
    say(f"{machine.name} is lost with its disk")
    machine.cut_power()
    scene.cluster.wait_state(machine, ["dead"], 30)
    since = time.monotonic()
    machine.empty_disk()
    machine.power_on()
    machine.wait_up()
    scene.install_on(machine)
    scene.cluster.wait_state(machine, ["up"])
    scene.note("replaced_and_working_s", since)
    time.sleep(3)
    scene.cluster.wait_copies()
    scene.note("replaced_and_all_copies_s", since)


def grow(scene):
    """One more machine, while a job runs; its member starts the model server itself."""
    since = time.monotonic()
    machine = scene.new_machine()
    scene.install_on(machine, starts_server=True)
    scene.members.append(machine)
    scene.cluster.wait_state(machine, ["up"])
    scene.note("power_on_to_new_member_working_s", since)


def deploy(scene):
    """One more machine, and a newer package on another, by `idunno deploy` over ssh; a third one is refused."""
    cluster, new, old = scene.cluster, scene.new_machine(), scene.other()
    key, config = cluster.folder / "ssh-key", cluster.folder / "ssh-config"
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key)
    config.write_text(
        f"Host *\n IdentityFile {key}\n User root\n StrictHostKeyChecking no\n UserKnownHostsFile /dev/null\n"
        " LogLevel ERROR\n"
    )
    for machine in (new, old):
        keys = "cd \"$(getent passwd 0 | cut -d: -f6)\"; install -d -m 700 .ssh; cat >.ssh/authorized_keys"
        machine.shell(keys, stdin=None, input=key.with_suffix(".pub").read_text())
        machine.command("systemctl", "start", "ssh")
    package = cluster.folder / "idunno.deb"
    package.write_bytes((scene.lab.shares["/packages"] / scene.packages[1]).read_bytes())
    words = ["deploy", "--package", package, "--introducer", scene.introducer.address, "--ssh-config", config]
    code, said = cluster.idunno(*words, new.address, check=False)
    if code == 0 or "pass --secret" not in said:
        raise Failed(f"without a secret it ended with {code}: {said}")
    words += ["--secret", cluster.secret]
    plan = cluster.idunno("--dry-run", *words, new.address, old.address)["would"]
    if "install IDunno, member" not in plan[0] or "upgrade IDunno" not in plan[1]:
        raise Failed(f"the plan is {plan}")
    stranger = cluster.folder / "another-secret.pem"
    run(cluster.program, "cluster", "init", "--out", stranger)
    code, said = cluster.idunno(*words[:-1], stranger, old.address, check=False)
    if code == 0 or "another cluster" not in said:
        raise Failed(f"with another cluster's secret it ended with {code}: {said}")
    since, main = time.monotonic(), old.unit(MEMBER, "MainPID")
    found = cluster.idunno(*words, new.address, old.address, timeout_s=600)["items"]
    scene.note("deployed_two_s", since)
    if [host["address"] for host in found] != [new.address, old.address] or any(
        "+next" not in host["version"] for host in found
    ):
        raise Failed(f"it says {found}")
    if old.unit(MEMBER, "MainPID") == main:
        raise Failed(f"{old.name} was not upgraded")
    scene.members.append(new)
    for machine in (new, old):
        cluster.wait_state(machine, ["up"])


def shrink(scene):
    """A machine is removed in order; what it held is copied."""
    machine = scene.other()
    machine.command("systemctl", "disable", "--quiet", "--now", MEMBER)
    scene.cluster.wait_state(machine, ["left"], 15)
    since, lacking = time.monotonic(), 0
    # The count follows after a moment, so a zero that is seen immediately proves nothing.
    while time.monotonic() < since + 3:
        lacking = max(lacking, scene.cluster.status()["store"]["under_replicated"])
    scene.figures["shrunk_lacked_copies"] = lacking
    scene.cluster.wait_copies()
    scene.note("shrunk_and_all_copies_s", since)
    machine.command("systemctl", "poweroff", check=False)
    machine.wait_off()
    scene.members.remove(machine)


def install_without_package(scene):
    """One more machine, by scripts/install.sh: installed, upgraded, uninstalled, installed again, purged."""
    since, script = time.monotonic(), "/source/scripts/install.sh"
    install = [script, "both", "--wheels", "/source/wheels"]
    done = scene.members[0].command(*install, check=False)
    if done.returncode == 0 or "Debian package" not in done.stderr:
        raise Failed(f"over a Debian package it ended with {done.returncode}: {done.stderr}")
    machine = scene.new_machine()
    # As on a machine without IDunno.
    machine.command("rm", "-rf", "/opt/idunno")
    machine.command(*install, timeout_s=600)
    for role in ("introducer", "member"):
        scene.set_up(machine, role)
    scene.members.append(machine)
    scene.cluster.wait_state(machine, ["up"])
    scene.note("power_on_to_working_by_script_s", since)
    status = f"umask 077; cat > /run/me.pem; idunno --identity /run/me.pem --cluster {machine.address}:7401 status"
    machine.shell(status, stdin=None, input=scene.cluster.identity.read_text())

    since, main = time.monotonic(), [machine.unit(unit, "MainPID") for unit in (INTRODUCER, MEMBER)]
    machine.command(*install, timeout_s=600)
    for unit, old in zip((INTRODUCER, MEMBER), main, strict=True):
        if machine.unit(unit, "MainPID") == old or machine.unit(unit, "ActiveState") != "active":
            raise Failed(f"{unit} was not restarted by the upgrade: it is {machine.unit(unit, 'ActiveState')}")
    scene.cluster.wait_state(machine, ["up"])
    scene.note("upgrade_by_script_s", since)
    uninstall_without_package(scene, machine, install)


def uninstall_without_package(scene, machine, install):
    """Data and settings are kept, and the machine returns as the same member; purging deletes everything."""
    script = install[0]
    settings, identity = machine.command("cat", "/etc/idunno/member.toml"), machine.identity()
    job = scene.begin_job()
    machine.command(script, "uninstall")
    scene.cluster.wait_state(machine, ["left"], 15)
    scene.finish_job(job)
    must_be_gone(machine, "test -e /usr/local/bin/idunnod", "test -e /opt/idunno", f"systemctl cat {MEMBER}")
    machine.command(*install, timeout_s=600)
    machine.command("systemctl", "enable", "--quiet", "--now", MEMBER)
    scene.cluster.wait_state(machine, ["up"])
    if (machine.command("cat", "/etc/idunno/member.toml"), machine.identity()) != (settings, identity):
        raise Failed("it returned with other settings, or as another member")
    machine.command(script, "uninstall", "--purge")
    scene.cluster.wait_state(machine, ["left"], 15, identity)
    must_be_purged(machine)
    machine.command("systemctl", "poweroff", check=False)
    machine.wait_off()
    scene.members.remove(machine)
    scene.cluster.wait_copies()


def must_be_purged(machine):
    data = (f"/var/lib/idunno{of}" for of in ("", "-introducer", "-model-server", "-model-files"))
    places = (*data, "/etc/idunno", "/var/log/idunno")
    users = ("id idunno", "id idunno-models")
    must_be_gone(machine, *(f"test -e {place}" for place in places), *users, f"systemctl cat {MEMBER}")


def must_be_gone(machine, *words):
    """Fails if one of these commands succeeds, because then something of IDunno is left."""
    for word in words:
        if machine.command(*word.split(), check=False).returncode == 0:
            raise Failed(f"`{word}` still succeeds on {machine.name}")


def move_introducer(scene):
    """To the first member's machine, without its file; then the members are told, one at a time."""
    machine = scene.members[0]
    scene.introducer.command("systemctl", "disable", "--quiet", "--now", INTRODUCER)
    old, scene.introducer = scene.introducer, machine
    scene.set_up(machine, "introducer")
    line = f's|^introducer = .*|introducer = "{machine.address}:7400"|'
    for member in scene.members:
        member.command("sed", "-i", line, "/etc/idunno/member.toml")
        member.command("systemctl", "restart", MEMBER)
        scene.cluster.wait_state(member, ["up"])
    old.command("systemctl", "poweroff", check=False)
    old.wait_off()
    place = "/var/lib/idunno-introducer/introducer.json"
    known = wait_for("it knows all", lambda: json.loads(machine.command("cat", place)), 60)
    ours = json.loads(machine.command("cat", "/var/lib/idunno/cluster.json"))
    if known["founder"] != ours:
        raise Failed(f"the introducer took {known['founder']} for the founder, which is {ours}")


def remove(scene):
    """Removing the package keeps data and settings, purging deletes them, and the cluster continues without it."""
    coordinator = scene.cluster.coordinator()
    machine = next(machine for machine in scene.members if machine not in (coordinator, scene.introducer))
    identity = machine.command("cat", "/var/lib/idunno/identity.json")
    settings = machine.command("cat", "/etc/idunno/member.toml")
    machine.command("dpkg", "--remove", "idunno")
    scene.cluster.wait_state(machine, ["left"], 15)
    must_be_gone(machine, "test -e /usr/bin/idunnod", "test -e /opt/idunno")
    if machine.command("cat", "/etc/idunno/member.toml") != settings:
        raise Failed("removing the package changed the settings")
    # It returns as the same member, but without a model server: the environment was removed with the package.
    machine.command("dpkg", "--install", f"/packages/{scene.package}")
    machine.command("idunno-setup-python", "--wheels", "/wheels", timeout_s=600)
    machine.command("systemctl", "start", MEMBER)
    scene.cluster.wait_state(machine, ["up"])
    if json.loads(identity)["id"] != json.loads(machine.command("cat", "/var/lib/idunno/identity.json"))["id"]:
        raise Failed("the member returned as another member")
    machine.command("dpkg", "--purge", "idunno")
    must_be_purged(machine)
    scene.members.remove(machine)
    time.sleep(3)
    scene.cluster.wait_copies()
    scene.finish_job(scene.start_job())


UNDER_LOAD = {
    "package": package,
    "roles": roles,
    "upgrade": upgrade,
    "rotate": rotate,
    "introducer": introducer_forgets,
    "replace": replace,
    "grow": grow,
    "deploy": deploy,
    "shrink": shrink,
    "move": move_introducer,
}
ALONE = {"install": install_without_package, "remove": remove}
