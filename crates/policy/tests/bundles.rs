//! What may become active, what is warned of, and what an evaluation may take (`policy.md` 2.3, 3.3, 3.4, 3.7).
#![allow(clippy::unwrap_used, reason = "tests")]

use caracal_policy::bundle::{InvalidBundle, Program};
use caracal_policy::decide::Decision;
use caracal_policy::document::{preview, validate};
use caracal_policy::input::Input;
use serde_json::{Value, json};

const M: &str = "# caracal:data-document\npackage caracal.authz\nimport rego.v1\n";

fn bundle(texts: &[&str]) -> Result<Program, InvalidBundle> {
    let documents: Vec<(String, String)> = texts.iter().enumerate().map(|(i, t)| (format!("pv-{i}"), format!("{M}{t}"))).collect();
    Program::compile(&documents)
}

fn refused(texts: &[&str]) -> String {
    bundle(texts).err().map(|e| e.to_string()).unwrap_or_default()
}

fn input(method: &str) -> Input {
    Input::normal(&json!({"action": {"id": "TokenExchange", "method": method}})).unwrap()
}

fn reason(program: &Program) -> String {
    match program.decide(&input("DELETE")) {
        Ok(Decision::Deny(denial)) => denial.reason.to_owned(),
        Ok(Decision::Allow { .. }) => "allow".to_owned(),
        Err(e) => format!("error: {e}"),
    }
}

#[test]
fn grants_of_which_no_entry_says_who_or_what_are_refused() {
    assert_eq!(refused(&[r#"grants := {"r": {"roles": {"a": ["s"]}}, "q": {}}"#]), "no entry of grants has application");
    assert_eq!(refused(&[r#"grants := {"r": {"application": "a"}, "q": {"application": "b"}}"#]), "no entry of grants has roles");
    assert_eq!(refused(&[r#"grants := {"r": {"application": "a"}, "q": {"roles": {}}}"#]), "", "some entries may lack some");
    assert_eq!(refused(&["grants := {}"]), "", "an empty list of grants is what an author renders for nobody");
}

#[test]
fn scalars_conflicts_and_strangers_are_refused() {
    for document in ["grants", "app_ids", "restrict"] {
        for scalar in ["5", "true", "\"x\""] {
            assert!(refused(&[&format!("{document} := {scalar}")]).contains(document), "{document} := {scalar}");
        }
    }
    assert!(refused(&["app_ids := {}\nhelper[\"r\"] := {}"]).contains("defines helper"));
    assert_ne!(refused(&[r#"restrict contains "a""#, r#"restrict := {"b"}"#]), "", "one name, two forms");
    for conflicting in ["app_ids", "confinement", "risk", "approval_tiers", "grants"] {
        assert_ne!(refused(&[&format!("{conflicting} := [1]"), &format!("{conflicting} := [2]")]), "", "{conflicting}");
    }
}

#[test]
fn a_refusal_says_which_text_and_where() {
    let e = bundle(&["grants := {}", "app_ids := {}\n\nhelper := 1"]).unwrap_err();
    assert_eq!((e.document.as_deref(), e.line), (Some("pv-1"), Some(6)));
    let e = bundle(&["grants := {}", "app_ids := }"]).unwrap_err();
    assert_eq!((e.document.as_deref(), e.line, e.column), (Some("pv-1"), Some(4), Some(12)));
}

#[test]
fn what_looks_like_a_rule_in_a_comment_or_a_string_is_none() {
    let text = "# helper := 1\napp_ids := {}\ngrants := {\n  `\nhelper := 2\n{`: {\"application\": \"a\", \"roles\": {\"x \\\" helper := (\": []}},\n} # {\nrestrict := set()";
    assert_eq!(refused(&[text]), "");
    assert!(refused(&["app_ids := {} helper := 2"]).contains("helper"), "a second rule on one line is a rule");
    assert!(refused(&["restrict contains \"x\" if {\n true\n} helper := 2"]).contains("helper"), "after a body too");
}

#[test]
fn a_document_that_reads_the_request_is_known_however_it_names_it() {
    for text in [
        "restrict contains \"x\" if input.action.method == \"DELETE\"",
        "import input as request\nrestrict contains \"x\" if request.action.method == \"DELETE\"",
        "import input.action\nrestrict contains \"x\" if action.method == \"DELETE\"",
    ] {
        let program = bundle(&[text]).unwrap_or_else(|e| panic!("{text}: {e}"));
        assert!(program.reads_input(), "{text}");
        assert_eq!(reason(&program), "restriction_active", "{text}");
        assert_eq!(program.warnings()[0].code, "depends_on_request");
    }
    let constant =
        bundle(&["# input\nrestrict := []\ngrants := {\"input\": {\"application\": \"input.x\", \"roles\": {}}}"]).unwrap();
    assert!(!constant.reads_input());
}

#[test]
fn warnings_name_code_document_and_line() {
    let rows = [
        ("risk := {}", "malformed_risk", "risk"),
        ("approval_tiers := [{\"tier\": 1}]", "malformed_approval_tiers", "approval_tiers"),
        ("confinement := \"x\"", "malformed_confinement", "confinement"),
        ("confinement := [{\"scopes\": []}]", "malformed_confinement", "confinement"),
        ("confinement := [{\"label_prefix\": 5, \"scopes\": []}]", "label_prefix_not_text", "confinement"),
        ("restrict contains \"x\" if input.a", "depends_on_request", "restrict"),
    ];
    for (text, code, document) in rows {
        let program = bundle(&[&format!("app_ids := {{}}\n{text}")]).unwrap();
        let found = serde_json::to_value(program.warnings()).unwrap();
        assert_eq!(found.as_array().unwrap().len(), 1, "{text}: {found}");
        assert_eq!((&found[0]["code"], &found[0]["document"], &found[0]["line"]), (&json!(code), &json!(document), &json!(5)));
        assert!(found[0]["message"].is_string());
    }
    let two = bundle(&["app_ids := {}", "risk := {}"]).unwrap();
    assert_eq!(serde_json::to_value(two.warnings()).unwrap()[0].get("line"), None, "a line of which text?");
    assert!(bundle(&["grants := {}"]).unwrap().warnings().is_empty());
}

#[test]
fn a_preview_lists_what_is_defined_and_read() {
    let text = format!(
        "{M}grants := {{}}\napp_ids := data.x.y\n# input.no\nrestrict contains \"input.no\" if input.action.method == \"D\"\n# \"decision\" : \"deny\""
    );
    assert_eq!(
        serde_json::to_value(preview(&text)).unwrap(),
        json!({"package": "caracal.authz", "rules": ["app_ids", "grants", "restrict"], "default_result": false, "decisions": ["deny"],
            "inputs_referenced": ["input.action.method"], "data_referenced": ["data.x.y"]})
    );
}

#[test]
fn a_long_line_and_a_large_bundle_are_read() {
    let entry = |i: usize| format!(r#""resource://r{i}":{{"application":"a","roles":{{"x":["s{i}"]}}}}"#);
    let line = format!("grants := {{{}}}", (0..3000).map(entry).collect::<Vec<_>>().join(","));
    assert!(line.len() > 150_000);
    let text = format!("{M}app_ids := {{\"a\":\"app\"}}\n{line}");
    assert_eq!(validate(&text), Ok(()));
    assert!(Program::compile(&[("pv".into(), text)]).unwrap().binds("app", "resource://r2999"));
    let filler = format!("{M}grants := {{}}\n#{}", "x".repeat(1_500_000));
    let three: Vec<_> = (0..3).map(|i| (format!("pv-{i}"), filler.clone())).collect();
    assert_eq!(Program::compile(&three).unwrap_err().to_string(), "the bundle is larger than 4 MiB");
}

const GREEDY: [&str; 11] = [
    "numbers.range(1, SEED * 1000000000000)",
    "numbers.range_step(1, SEED * 1000000000000, 2)",
    "[1 << 3 | some x in [SEED]; y := bits.lsh(x, 4000000000)]",
    "sprintf(\"%999999999d\", [SEED])",
    "sprintf(\"%99999999999999d\", [SEED])",
    "concat(sprintf(\"%9000d\", [SEED]), numbers.range(1, 100000))",
    "replace(sprintf(\"%90000d\", [SEED]), \" \", sprintf(\"%90000d\", [SEED]))",
    "strings.replace_n({\" \": \"          \", \"  \": sprintf(\"%9000d\", [SEED])}, sprintf(\"%90000d\", [SEED]))",
    "[n | some a in numbers.range(1, 3000); some b in numbers.range(1, 3000); n := a + b + SEED]",
    "json.marshal(NESTED)",
    "NESTED",
];

/// Doubles what a value holds, again and again, in shared memory.
fn nested() -> String {
    let lines = (1..=29).map(|i| format!("x{i} := [x{}, x{}]", i - 1, i - 1)).collect::<Vec<_>>().join("; ");
    format!("[r | x0 := [SEED]; {lines}; r := x29]")
}

fn greedy(expression: &str, seed: &str) -> String {
    let expression = expression.replace("[1 << 3 |", "[y |").replace("NESTED", &nested()).replace("SEED", seed);
    format!("restrict := [{expression}]")
}

#[test]
fn a_greedy_document_cannot_become_active() {
    for expression in GREEDY {
        let said = refused(&[&greedy(expression, "1")]);
        assert!(said.contains("takes more") || expression.starts_with("concat"), "{expression}: {said:?}");
        assert_ne!(said, "", "{expression}");
    }
}

#[test]
fn a_document_that_is_greedy_with_the_request_denies_and_says_so() {
    for expression in GREEDY.iter().filter(|e| !e.starts_with("concat")) {
        let text = greedy(expression, "count(input.action.method)");
        let program = bundle(&[&format!(
            "restrict contains r if {{ input.action.method == \"DELETE\"; {} }}",
            text.replacen("restrict :=", "r :=", 1)
        )]);
        let program = program.unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(reason(&program), "evaluation_limit_exceeded", "{expression}");
        assert!(matches!(program.decide(&input("GET")), Ok(Decision::Deny(d)) if d.reason == "no_rule_matched"), "{expression}");
    }
}

#[test]
fn guarded_builtins_do_what_they_did() {
    let rows: [(&str, Value); 8] = [
        ("numbers.range(1, 3)", json!([1, 2, 3])),
        ("numbers.range_step(0, 10, 5)", json!([0, 5, 10])),
        ("bits.lsh(1, 4)", json!(16)),
        ("concat(\",\", [\"a\", \"b\"])", json!("a,b")),
        ("replace(\"aa\", \"a\", \"bc\")", json!("bcbc")),
        ("strings.replace_n({\"a\": \"b\", \"c\": \"d\"}, \"ac\")", json!("bd")),
        ("sprintf(\"%5d|%s\", [7, \"x\"])", json!("    7|x")),
        ("json.marshal({\"a\": [1]})", json!("{\"a\":[1]}")),
    ];
    for (expression, wanted) in rows {
        let wanted = wanted.to_string();
        let program = bundle(&[&format!("restrict contains \"same\" if {expression} == {wanted}")]).unwrap();
        assert_eq!(reason(&program), "restriction_active", "{expression}");
    }
}

#[test]
fn forbidden_builtins_do_not_exist_however_they_are_spelt() {
    for name in ["rand.intn(\"x\", 5)", "time.now_ns()"] {
        assert!(validate(&format!("{M}restrict := [{name}]")).unwrap_err().code.starts_with("forbidden_builtin:"), "{name}");
        let (package, call) = name.split_once('.').unwrap();
        let (function, arguments) = call.split_once('(').unwrap();
        let spelt = format!("restrict := [{package}[\"{function}\"]({arguments}]");
        assert_ne!(refused(&[&spelt]), "", "{spelt}");
    }
}

#[test]
fn an_engine_that_panics_is_an_evaluation_that_failed() {
    // A digit that is no decimal digit makes the engine's formatter panic.
    let text = "restrict contains sprintf(\"%\u{b2}d\", [count(input.action.method)])";
    let program = bundle(&[text]).unwrap();
    assert_eq!(reason(&program), "error: the engine failed");
}

#[test]
fn texts_that_nest_too_deeply_are_refused() {
    let deep = |open: &str, close: &str| format!("{M}grants := {}1{}", open.repeat(50_000), close.repeat(50_000));
    for (open, close) in [("[", "]"), ("{\"a\":", "}"), ("(", ")"), ("count(", ")"), ("[x|x:=", "]"), ("-", ""), ("- ", "")] {
        assert!(validate(&deep(open, close)).is_err(), "{open}");
    }
}

#[test]
fn texts_that_chain_too_long_are_refused() {
    let chains =
        ["+1", "-1", "*1", " and 1", "|1", ".a", "[0]", "==1", ", y := 1", " := 1", " in 1", "(1)", " with input as 1", " 1"];
    let prefixes = ["not ", "some x in ", "every x in y { ", "if ", "else := ", "default ", "-", "!"];
    for times in [70, 4_000, 10_000, 50_000] {
        for link in chains {
            let chain = format!("{M}grants := x if {{ y := x{} }}", link.repeat(times));
            if let Ok(program) = Program::compile(&[("pv".into(), chain.clone())]) {
                let _ = program.decide(&input("GET"));
            }
            let _ = validate(&format!("{M}grants := x{}", link.repeat(times)));
        }
        for link in prefixes {
            let _ = validate(&format!("{M}grants := x if {{ {}1 }}", link.repeat(times)));
        }
    }
    for link in ["+1", ".a", "[0]", " in [1]"] {
        assert!(validate(&format!("{M}restrict := {{1}}\ngrants := data.x{}", link.repeat(70))).is_err(), "{link}");
    }
}

#[test]
fn a_long_body_is_refused_before_it_is_evaluated() {
    let steps = |n: usize| (1..n).map(|i| format!("x{i} := [[[[[x{}]]]]]", i - 1)).collect::<Vec<_>>().join("\n");
    let said = refused(&[&format!("restrict := [r | x0 := 1\n{}\nr := x39]", steps(40))]);
    assert!(said.contains("statements"), "{said}");
    let said = refused(&[&format!("restrict := [r | x0 := 1\n{}\nr := x29]", steps(30))]);
    assert!(said.contains("takes more"), "nests beyond 128: {said}");
    assert_eq!(refused(&[&format!("restrict := [r | x0 := 1\n{}\nr := x19]", steps(20))]), "");
}

#[test]
fn numbers_beyond_any_size_and_bytes_no_store_keeps_are_refused() {
    assert_ne!(refused(&["restrict := [1e999999999]"]), "");
    assert_ne!(refused(&[&format!("restrict := [{}]", "9".repeat(200_000))]).len(), 1, "answers");
    let nul = validate(&format!("{M}grants := {{}}\n\0")).unwrap_err();
    assert!(!nul.lexical && nul.code.starts_with("syntax_error"));
}
