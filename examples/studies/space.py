"""What a search may change: axes of a configuration and edits of a schema.  search.py says how a space file is written."""
import copy
import fnmatch
import hashlib
import json
import math
import os
import re
import sys


def read_json(path):
    """JSON with // and /* */ comments, as mixrec reads it."""
    with open(path, encoding="utf-8") as file:
        text = file.read()
    pattern = r'("(?:\\.|[^"\\])*")|//[^\n]*|/\*.*?\*/'
    return json.loads(re.sub(pattern, lambda m: m.group(1) or " ", text, flags=re.S))


def say(text):
    print(text, file=sys.stderr, flush=True)


def short_hash(value):
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


# ---- Schemas. ----


def find_schema(config_path, data):
    """The schema that mixrec takes for this configuration and folder: the first one whose log is there."""
    named = read_json(config_path).get("data", {}).get("schema", [])
    named = [named] if isinstance(named, str) else named
    folder = os.path.dirname(config_path)
    for path in [os.path.join(folder, name) for name in named] or [os.path.join(data, "schema.json")]:
        schema = read_json(path)
        files = schema["log"]["files"]
        if all(os.path.exists(os.path.join(data, file)) for file in ([files] if isinstance(files, str) else files)):
            return schema
    sys.exit(f"no schema of {config_path} fits the files of {data}")


def merged(to, patch):
    """A JSON merge patch (RFC 7386)."""
    if not isinstance(patch, dict):
        return patch
    result = dict(to) if isinstance(to, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result


def feature_name(feature):
    if isinstance(feature, str):
        return feature.split(".")[-1]
    return feature.get("name") or feature["column"].split(".")[-1]


def edited(schema, edits):
    schema = copy.deepcopy(schema)
    for edit in edits:
        names = edit.get("drop") or edit.get("set") or []
        fits = lambda feature: any(fnmatch.fnmatch(feature_name(feature), name) for name in names)
        groups = schema["features"]
        for group, features in groups.items():
            if "drop" in edit:
                groups[group] = [f for f in features if not fits(f)]
            elif "set" in edit:
                groups[group] = [merged({"column": f} if isinstance(f, str) else f, edit["to"]) if fits(f) else f
                                 for f in features]
        for group, features in edit.get("add", {}).items():
            added = {feature_name(f) for f in features}
            groups[group] = [f for f in groups.get(group, []) if feature_name(f) not in added] + features
        schema = merged(schema, edit.get("merge", {}))
    return schema


# ---- The space.  A point is {axis: value}: only the axes that differ from the base configuration. ----


class Space:
    def __init__(self, path, schema):
        space = read_json(path)
        self.keep = space.get("keep", 0.5)
        self.axes = space.get("axes", {})
        self.schema = schema
        self.edits = {}
        for axis, choices in space.get("schema", {}).items():
            useful = {label: edits for label, edits in choices.items() if edited(schema, edits) != schema}
            for label in choices.keys() - useful.keys():
                say(f"schema axis '{axis}': '{label}' changes nothing in this schema and is left out")
            if useful:
                self.edits[axis] = useful
        self.score_weights = space.get("score", {"auc": 1})
        self.rungs = space["rungs"]
        shares = sum(rung.get("share", 1) for rung in self.rungs)
        self.shares = [rung.get("share", 1) / shares for rung in self.rungs]

    def names(self):
        return list(self.axes) + list(self.edits)

    def draw_axis(self, axis, rng, keep=None):
        """A value of one axis; None = the base configuration's."""
        choices = self.axes.get(axis, list(self.edits.get(axis, ())))
        stays = self.keep
        if isinstance(choices, dict):
            stays = choices.get("keep", self.keep)
        if rng.random() < (stays if keep is None else keep):
            return None
        if isinstance(choices, dict) and "choices" not in choices:
            kind = "log" if "log" in choices else "uniform"
            low, high = choices[kind]
            value = math.exp(rng.uniform(math.log(low), math.log(high))) if kind == "log" else rng.uniform(low, high)
            return float(f"{value:.3g}")
        return rng.choice(choices["choices"] if isinstance(choices, dict) else choices)

    def draw(self, rng):
        point = {axis: self.draw_axis(axis, rng) for axis in self.names()}
        return {axis: value for axis, value in point.items() if value is not None}

    def near(self, points, rng):
        """A cross of two good points with one or two axes drawn again."""
        first, second = rng.choice(points), rng.choice(points)
        point = {}
        for axis in self.names():
            value = rng.choice((first, second)).get(axis)
            if value is not None:
                point[axis] = value
        if "data.tasks" in self.axes:
            point.pop("data.tasks", None)
            if "data.tasks" in first:
                point["data.tasks"] = first["data.tasks"]
        for axis in rng.sample(self.names(), min(len(self.names()), rng.choice((1, 2)))):
            point.pop(axis, None)
            value = self.draw_axis(axis, rng)
            if value is not None:
                point[axis] = value
        return point

    def settings(self, point):
        """What --set needs, without the schema."""
        sets = {}
        for axis, value in point.items():
            if axis in self.axes:
                sets.update(value if isinstance(value, dict) else {axis: value})
        return sets

    def schema_of(self, point):
        schema = self.schema
        for axis in self.edits:
            if axis in point:
                schema = edited(schema, self.edits[axis][point[axis]])
        return schema

    def score(self, metrics):
        values = [metrics.get(name) for name in self.score_weights]
        if any(value is None for value in values):
            return -math.inf
        return sum(weight * value for weight, value in zip(self.score_weights.values(), values))
