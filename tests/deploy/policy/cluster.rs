//! A model of how the API server applies policies: constraints, bindings, conditions, variables, patches, validations.
//!
//! It evaluates the CEL of the policies. Of Kubernetes' type checker it has what is easily forgotten: [`kind`].

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use cel::common::ast::{EntryExpr, Expr, LiteralValue};
use cel::objects::{Key, Value as Cel};
use cel::{Context, IdedExpr, Program};
use serde_json::{Value, json};

/// One request to the API server.
#[derive(Clone)]
pub(crate) struct Request {
    pub(crate) operation: &'static str,
    pub(crate) resource: &'static str,
    /// The labels of the pod's namespace.
    pub(crate) namespace: Value,
    pub(crate) object: Value,
    pub(crate) old: Value,
}

impl Request {
    pub(crate) fn create(pod: &Value) -> Self {
        let (object, old) = (pod.clone(), Value::Null);
        Self { operation: "CREATE", resource: "pods", namespace: json!({}), object, old }
    }

    pub(crate) fn update(resource: &'static str, old: &Value, pod: &Value) -> Self {
        Self { operation: "UPDATE", resource, namespace: json!({}), object: pod.clone(), old: old.clone() }
    }

    pub(crate) fn connect(resource: &'static str) -> Self {
        let object = json!({"kind": "PodExecOptions", "apiVersion": "v1"});
        Self { operation: "CONNECT", resource, namespace: json!({}), object, old: Value::Null }
    }

    pub(crate) fn in_namespace(mut self, label: &str) -> Self {
        self.namespace = json!({label: "true"});
        self
    }
}

/// The policies that a cluster has, with their bindings.
pub(crate) struct Cluster {
    documents: Vec<Value>,
    programs: HashMap<String, Program>,
}

impl Cluster {
    pub(crate) fn new(manifests: &str) -> Self {
        let documents: Vec<Value> = serde_saphyr::from_multiple(manifests).unwrap();
        let mut programs = HashMap::new();
        for policy in &documents {
            compile(&policy["spec"], &mut programs);
        }
        Self { documents, programs }
    }

    /// What the mutating policies make of the object.
    pub(crate) fn mutate(&self, request: &Request) -> Value {
        let mut request = request.clone();
        for policy in self.bound("MutatingAdmissionPolicy", &request) {
            // A policy that is bound twice sees what its first run has made.
            if !self.conditions_hold(policy, &request) {
                continue;
            }
            for mutation in list(&policy["spec"]["mutations"]) {
                assert_eq!(mutation["patchType"], "JSONPatch");
                let variables = self.variables(policy, &request);
                let patch =
                    self.run(&mutation["jsonPatch"]["expression"], &request, variables).unwrap().json().unwrap();
                for operation in list(&patch) {
                    apply(&mut request.object, operation);
                }
            }
        }
        request.object
    }

    /// The messages of the validations that fail; a policy that can't be evaluated fails as well.
    pub(crate) fn refusals(&self, request: &Request) -> BTreeSet<String> {
        let mut refusals = BTreeSet::new();
        for policy in self.bound("ValidatingAdmissionPolicy", request) {
            if !self.conditions_hold(policy, request) {
                continue;
            }
            let variables = self.variables(policy, request);
            for validation in list(&policy["spec"]["validations"]) {
                match self.run(&validation["expression"], request, variables.clone()) {
                    Ok(Cel::Bool(true)) => {}
                    Ok(Cel::Bool(false)) => drop(refusals.insert(text(&validation["message"]).to_owned())),
                    other => drop(refusals.insert(format!("{other:?}"))),
                }
            }
        }
        refusals
    }

    /// Every message that a validation has.
    pub(crate) fn messages(&self) -> BTreeSet<String> {
        let policies = self.documents.iter().filter(|document| document["kind"] == "ValidatingAdmissionPolicy");
        policies
            .flat_map(|policy| list(&policy["spec"]["validations"]))
            .map(|validation| text(&validation["message"]).to_owned())
            .collect()
    }

    /// The policies of a kind that take the request, once for each binding that does.
    fn bound(&self, kind: &str, request: &Request) -> Vec<&Value> {
        let mut bound = Vec::new();
        for binding in self.documents.iter().filter(|document| document["kind"] == format!("{kind}Binding")) {
            let policy = self
                .documents
                .iter()
                .find(|document| {
                    document["kind"] == kind && document["metadata"]["name"] == binding["spec"]["policyName"]
                })
                .expect("a binding has its policy");
            assert_eq!(policy["spec"]["failurePolicy"], "Fail");
            if kind == "ValidatingAdmissionPolicy" {
                assert_eq!(binding["spec"]["validationActions"], json!(["Deny"]));
            }
            let matched = list(&policy["spec"]["matchConstraints"]["resourceRules"]).iter().any(|rule| {
                assert_eq!((&rule["apiGroups"], &rule["apiVersions"]), (&json!([""]), &json!(["v1"])));
                list(&rule["operations"]).contains(&json!(request.operation))
                    && list(&rule["resources"]).contains(&json!(request.resource))
            });
            let resources = binding["spec"]["matchResources"].as_object().expect("a binding selects");
            let selected = resources.iter().all(|(selector, labels)| match selector.as_str() {
                "namespaceSelector" => selects(labels, &request.namespace),
                // A pod that loses the label is still one that had it.
                "objectSelector" => {
                    [&request.object, &request.old].iter().any(|o| selects(labels, &o["metadata"]["labels"]))
                }
                other => panic!("{other} is not modelled"),
            });
            if matched && selected {
                bound.push(policy);
            }
        }
        bound
    }

    fn conditions_hold(&self, policy: &Value, request: &Request) -> bool {
        // They see no variables.
        list(&policy["spec"]["matchConditions"]).iter().all(|condition| {
            match self.run(&condition["expression"], request, HashMap::new()) {
                Ok(Cel::Bool(holds)) => holds,
                other => panic!("{}: {other:?}", condition["name"]),
            }
        })
    }

    fn variables(&self, policy: &Value, request: &Request) -> HashMap<Key, Cel> {
        let mut variables = HashMap::new();
        for variable in list(&policy["spec"]["variables"]) {
            // The API server evaluates those that are used; here, one that fails is missing to whoever uses it.
            if let Ok(value) = self.run(&variable["expression"], request, variables.clone()) {
                variables.insert(Key::from(text(&variable["name"])), value);
            }
        }
        variables
    }

    fn run(&self, expression: &Value, request: &Request, variables: HashMap<Key, Cel>) -> Result<Cel, String> {
        let mut context = Context::default();
        context.add_variable_from_value("object", cel(&request.object));
        context.add_variable_from_value("oldObject", cel(&request.old));
        context.add_variable_from_value("variables", Cel::Map(variables.into()));
        self.programs[text(expression)].execute(&context).map_err(|error| format!("{error}: {expression}"))
    }
}

/// Compiles everything in a policy that is named `expression`.
fn compile(part: &Value, programs: &mut HashMap<String, Program>) {
    match part {
        Value::Array(items) => items.iter().for_each(|item| compile(item, programs)),
        Value::Object(fields) => {
            for (name, value) in fields {
                compile(value, programs);
                if name == "expression" {
                    // The library has no such type; as a map it comes out as JSON.
                    let source = text(value)
                        .replace("JSONPatch{op: ", "{\"op\": ")
                        .replace(", path: ", ", \"path\": ")
                        .replace(", value: ", ", \"value\": ");
                    let program = Program::compile(&source).unwrap_or_else(|error| panic!("{error}\n{source}"));
                    kind(program.expression());
                    programs.insert(text(value).to_owned(), program);
                }
            }
        }
        _ => {}
    }
}

/// The type of an expression, where it can be told without evaluating it. Kubernetes wants all elements of a list, and all
/// values of a map, to be of one type; the library does not.
fn kind(expression: &IdedExpr) -> Option<String> {
    let one = |literal: &str, kinds: Vec<Option<String>>| {
        let kinds: BTreeSet<_> = kinds.into_iter().flatten().collect();
        assert!(kinds.len() <= 1, "a {literal} of {kinds:?}: give each a `dyn`");
        kinds.first().map(|kind| format!("{literal}({kind})"))
    };
    match &expression.expr {
        Expr::Literal(literal) => Some(format!("{:?}", std::mem::discriminant(literal))),
        Expr::List(list) => one("list", list.elements.iter().map(kind).collect()),
        Expr::Map(map) => {
            let entries = map.entries.iter().map(|entry| match &entry.expr {
                EntryExpr::MapEntry(entry) => entry,
                EntryExpr::StructField(_) => unreachable!("a map has no fields"),
            });
            let kinds = entries.clone().map(|entry| kind(&entry.value)).collect();
            // What was a `JSONPatch` has fields, each of its own type.
            let patch = entries.clone().any(
                |entry| matches!(&entry.key.expr, Expr::Literal(LiteralValue::String(key)) if key.inner() == "op"),
            );
            if patch { None } else { one("map", kinds) }
        }
        Expr::Call(call) => {
            for part in call.target.iter().map(|target| &**target).chain(&call.args) {
                kind(part);
            }
            (call.func_name == "dyn").then(|| "dyn".to_owned())
        }
        Expr::Select(select) => kind(&select.operand).and(None),
        Expr::Comprehension(comprehension) => {
            for part in [&comprehension.iter_range, &comprehension.loop_step, &comprehension.result] {
                kind(part);
            }
            None
        }
        Expr::Ident(_) | Expr::Struct(_) | Expr::Unspecified => None,
    }
}

fn selects(selector: &Value, labels: &Value) -> bool {
    assert_eq!(selector.as_object().unwrap().len(), 1, "only matchLabels is modelled");
    selector["matchLabels"].as_object().unwrap().iter().all(|(name, value)| labels.get(name) == Some(value))
}

/// JSON as Kubernetes gives it to CEL: whole numbers are `int`, not `uint`.
fn cel(value: &Value) -> Cel {
    match value {
        Value::Null => Cel::Null,
        Value::Bool(value) => Cel::Bool(*value),
        Value::Number(number) => Cel::Int(number.as_i64().expect("a whole number")),
        Value::String(text) => Cel::String(Arc::new(text.clone())),
        Value::Array(items) => Cel::List(Arc::new(items.iter().map(cel).collect())),
        Value::Object(fields) => Cel::Map(
            fields.iter().map(|(name, value)| (Key::from(name.as_str()), cel(value))).collect::<HashMap<_, _>>().into(),
        ),
    }
}

/// An `add` of RFC 6902 §4.1, to a member or an element.
fn apply(object: &mut Value, operation: &Value) {
    assert_eq!(operation["op"], "add");
    let (parent, last) = text(&operation["path"]).rsplit_once('/').unwrap();
    let value = operation["value"].clone();
    match object.pointer_mut(parent).unwrap_or_else(|| panic!("nothing is at {parent}")) {
        Value::Array(items) if last == "-" => items.push(value),
        Value::Array(items) => items.insert(last.parse().unwrap(), value),
        Value::Object(fields) => drop(fields.insert(last.to_owned(), value)),
        other => panic!("{other} has no members"),
    }
}

/// The elements of a list that may be missing.
pub(crate) fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

pub(crate) fn text(value: &Value) -> &str {
    value.as_str().expect("a string")
}
