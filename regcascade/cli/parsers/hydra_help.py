"""Help of `train` and `evaluate`, read from the config files without Hydra, which takes a second to compose them."""

import textwrap

import yaml

from regcascade.report.paper.experiments import CONF

_FLAGS = """\
-m, --multirun       run every combination of the values separated by commas (a sweep)
--config-dir DIR     add configs of your own, laid out as conf/
--cfg job            print the config, with the options of all groups, and run nothing
GROUP=NAME --help    list all groups, and all options with their values under this choice
--hydra-help         list the other flags of Hydra"""


def hydra_help(command: str) -> str:
    """Write the help of a command: examples, groups with their defaults, options of no group, flags."""
    text = (CONF / f"{command}.yaml").read_text(encoding="utf-8")
    config = yaml.safe_load(text)
    defaults = {group: name for one in config["defaults"] if one != "_self_" for group, name in one.items()}
    examples = config["hydra"]["help"]["header"].replace(f"python {command}.py", f"regcascade {command}")
    groups = []
    for group, default in defaults.items():
        files = sorted(path.relative_to(CONF / group).with_suffix("") for path in (CONF / group).rglob("[!_]*.yaml"))
        line = f"{group}{f' [{default}]' if default else ''}: {', '.join(file.as_posix() for file in files)}"
        groups.append(textwrap.fill(line, 120, subsequent_indent="  "))
    blocks = text.partition("\nhydra:")[0].split("\n\n")[1:]  # of options, with the comments that explain them
    options = "\n\n".join(block for block in blocks if not block.startswith("reproduces:")).strip()
    sections = {
        "Groups (GROUP=NAME; [the default])": "\n".join(groups),
        "Options (KEY=VALUE; of a group GROUP.KEY=VALUE)": options,
        "Flags": _FLAGS,
    }
    return examples + "".join(f"\n== {title} ==\n{content}\n" for title, content in sections.items())
