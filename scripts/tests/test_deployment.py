"""The examples of deployment: their edits meet the settings that the package installs, and their commands are shell."""

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
EXAMPLES = ROOT / "docs/examples"
SETTINGS = {name: (ROOT / f"scripts/systemd/{name}.toml").read_text() for name in ("member", "introducer")}


def test_the_playbook_edits_one_line_of_the_settings_each():
    text = (EXAMPLES / "ansible/playbook.yml").read_text()
    assert text.count('regexp: "^(# )?') == 2
    for name, key in [("introducer", "advertise"), ("member", "advertise"), ("member", "introducer")]:
        assert f"path: /etc/idunno/{name}.toml" in text
        assert len(re.findall(rf"^(# )?{key} = ", SETTINGS[name], re.MULTILINE)) == 1


def test_cloud_inits_script_sets_the_members_addresses(tmp_path):
    text = (EXAMPLES / "cloud-init.yaml").read_text()
    block = text.split("    content: |\n")[1].split("\nruncmd:")[0]
    script = "\n".join(line.removeprefix(" " * 6) for line in block.splitlines())
    (tmp_path / "install.sh").write_text(script)
    assert subprocess.run(["sh", "-n", tmp_path / "install.sh"]).returncode == 0

    settings = tmp_path / "member.toml"
    settings.write_text(SETTINGS["member"])
    edit = re.search(r"^sed -i .*?member\.toml$", script, re.MULTILINE | re.DOTALL)[0]
    edit = edit.replace("/etc/idunno/member.toml", str(settings)).replace("INTRODUCER_IP", "10.0.0.1")
    subprocess.run(["sh", "-euc", f"me=10.0.0.7; {edit}"], check=True)
    lines = settings.read_text().splitlines()
    assert {'advertise = "10.0.0.7"', 'introducer = "10.0.0.1:7400"'} <= set(lines)

    # `ip` is not on every machine: its answer, as iproute2 prints it.
    address = re.search(r'^me="\$\(ip -json route get INTRODUCER_IP \| (sed .*)\)"$', script, re.MULTILINE)[1]
    answer = '[{"dst":"10.0.0.1","dev":"ens5","prefsrc":"10.0.0.7","flags":[],"uid":0,"cache":[]}]'
    found = subprocess.run(["sh", "-euc", address], input=answer, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "10.0.0.7"
