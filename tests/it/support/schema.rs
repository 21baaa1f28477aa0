//! Whether JSON is as a schema says.

use serde_json::Value;

/// As much of JSON Schema as the document has: references, types, enums, items, and properties.
pub(crate) fn conforms(document: &Value, schema: &Value, value: &Value) -> Result<(), String> {
    if let Some(reference) = schema["$ref"].as_str() {
        let target = document.pointer(reference.strip_prefix('#').unwrap()).unwrap();
        return conforms(document, target, value);
    }
    if let Some(choices) = schema["anyOf"].as_array() {
        let fits = choices.iter().any(|choice| conforms(document, choice, value).is_ok());
        return fits.then_some(()).ok_or_else(|| format!("{value} is none of {choices:?}"));
    }
    if let Some(allowed) = schema["enum"].as_array() {
        return allowed.contains(value).then_some(()).ok_or_else(|| format!("{value} is not in {allowed:?}"));
    }
    let types: Vec<&str> = match &schema["type"] {
        Value::Array(types) => types.iter().filter_map(Value::as_str).collect(),
        one => one.as_str().into_iter().collect(),
    };
    let is = |name: &&str| match *name {
        "string" => value.is_string(),
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "number" => value.is_number(),
        "integer" => value.is_u64(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("a type {other}"),
    };
    if !types.iter().any(is) {
        return Err(format!("{value} is not {types:?}"));
    }
    let items = value.as_array().filter(|_| schema["items"].is_object());
    for (at, item) in items.into_iter().flatten().enumerate() {
        conforms(document, &schema["items"], item).map_err(|what| format!("{at}: {what}"))?;
    }
    let Some(object) = value.as_object() else { return Ok(()) };
    for name in schema["required"].as_array().into_iter().flatten() {
        if !object.contains_key(name.as_str().unwrap()) {
            return Err(format!("no {name}"));
        }
    }
    for (name, value) in object {
        match schema["properties"].get(name) {
            Some(property) => {
                conforms(document, property, value).map_err(|what| format!("{name}: {what}"))?
            }
            None if schema["additionalProperties"] == false => {
                return Err(format!("{name} is not described"));
            }
            None if schema["additionalProperties"].is_object() => {
                conforms(document, &schema["additionalProperties"], value)
                    .map_err(|what| format!("{name}: {what}"))?;
            }
            None => {}
        }
    }
    Ok(())
}
