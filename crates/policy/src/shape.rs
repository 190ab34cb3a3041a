//! How large the shape of a text may be. The engine walks its trees by recursion, so a tree must not be deep; and what one body
//! builds step upon step nests that much deeper, so a body must not be long.

use regorus::unstable::{Expr, Literal, Module, Query, Ref, Rule, RuleHead};

/// Most names and operators of a text: literal data has few.
const WORDS: usize = 16_384;
/// Deepest expression.
const DEPTH: usize = 64;
/// Most statements of a body.
const STATEMENTS: usize = 32;

/// Why a shape is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Misshapen {
    #[error("more than {WORDS} names and operators")]
    Words,
    #[error("an expression nests more than {DEPTH} deep")]
    Depth,
    #[error("a body of more than {STATEMENTS} statements")]
    Statements,
}

/// Looks at blanked text, before it is parsed: bounds how deep a tree can become at all.
pub(crate) fn scan(blank: &str) -> Result<(), Misshapen> {
    let (mut words, mut nesting) = (0, 0_usize);
    let mut within = false;
    for c in blank.chars() {
        match c {
            '(' | '[' | '{' => nesting += 1,
            ')' | ']' | '}' => nesting = nesting.saturating_sub(1),
            _ => {}
        }
        if nesting > DEPTH {
            return Err(Misshapen::Depth);
        }
        let word = c.is_alphanumeric() || c == '_';
        words += usize::from(word && !within || "+-*/%&|.=<>!".contains(c));
        within = word;
    }
    if words > WORDS { Err(Misshapen::Words) } else { Ok(()) }
}

enum Node<'a> {
    Expr(&'a Expr),
    Query(&'a Query),
}

fn node(expr: &Ref<Expr>) -> Node<'_> {
    Node::Expr(expr)
}

/// Looks at what was parsed. Walks by a list of its own, whatever the depth.
pub(crate) fn check(module: &Module) -> Result<(), Misshapen> {
    let mut open: Vec<(Node<'_>, usize)> = Vec::new();
    for rule in &module.policy {
        open.extend(parts(rule).into_iter().map(|node| (node, 1)));
    }
    while let Some((node, depth)) = open.pop() {
        if depth > DEPTH {
            return Err(Misshapen::Depth);
        }
        match node {
            Node::Expr(expr) => open.extend(below(expr).into_iter().map(|node| (node, depth + 1))),
            Node::Query(query) => {
                if query.stmts.len() > STATEMENTS {
                    return Err(Misshapen::Statements);
                }
                open.extend(statements(query).into_iter().map(|node| (node, depth + 1)));
            }
        }
    }
    Ok(())
}

fn parts(rule: &Rule) -> Vec<Node<'_>> {
    match rule {
        Rule::Default { refr, args, value, .. } => [refr, value].into_iter().chain(args).map(node).collect(),
        Rule::Spec { head, bodies, .. } => {
            let mut found: Vec<Node<'_>> = match head {
                RuleHead::Compr { refr, assign, .. } => {
                    [Some(refr), assign.as_ref().map(|a| &a.value)].into_iter().flatten().map(node).collect()
                }
                RuleHead::Set { refr, key, .. } => [Some(refr), key.as_ref()].into_iter().flatten().map(node).collect(),
                RuleHead::Func { refr, args, assign, .. } => {
                    [Some(refr), assign.as_ref().map(|a| &a.value)].into_iter().flatten().chain(args).map(node).collect()
                }
            };
            for body in bodies {
                found.extend(body.assign.as_ref().map(|a| Node::Expr(&a.value)));
                found.push(Node::Query(&body.query));
            }
            found
        }
    }
}

fn statements(query: &Query) -> Vec<Node<'_>> {
    let mut found = Vec::new();
    for statement in &query.stmts {
        match &statement.literal {
            Literal::SomeVars { .. } => {}
            Literal::SomeIn { key, value, collection, .. } => {
                found.extend([Some(value), Some(collection), key.as_ref()].into_iter().flatten().map(node));
            }
            Literal::Expr { expr, .. } | Literal::NotExpr { expr, .. } => found.push(Node::Expr(expr)),
            Literal::Every { domain, query, .. } => found.extend([Node::Expr(domain), Node::Query(query)]),
        }
        found.extend(statement.with_mods.iter().flat_map(|with| [Node::Expr(&with.refr), Node::Expr(&with.r#as)]));
    }
    found
}

fn below(expr: &Expr) -> Vec<Node<'_>> {
    match expr {
        Expr::String { .. }
        | Expr::RawString { .. }
        | Expr::Number { .. }
        | Expr::Bool { .. }
        | Expr::Null { .. }
        | Expr::Var { .. } => Vec::new(),
        Expr::Array { items, .. } | Expr::Set { items, .. } => items.iter().map(node).collect(),
        Expr::Object { fields, .. } => fields.iter().flat_map(|(_, key, value)| [Node::Expr(key), Node::Expr(value)]).collect(),
        Expr::ArrayCompr { term, query, .. } | Expr::SetCompr { term, query, .. } => vec![Node::Expr(term), Node::Query(query)],
        Expr::ObjectCompr { key, value, query, .. } => vec![Node::Expr(key), Node::Expr(value), Node::Query(query)],
        Expr::Call { fcn, params, .. } => std::iter::once(fcn).chain(params).map(node).collect(),
        Expr::UnaryExpr { expr, .. } => vec![Node::Expr(expr)],
        Expr::RefDot { refr, .. } => vec![Node::Expr(refr)],
        Expr::RefBrack { refr, index, .. } => vec![Node::Expr(refr), Node::Expr(index)],
        Expr::BinExpr { lhs, rhs, .. }
        | Expr::BoolExpr { lhs, rhs, .. }
        | Expr::ArithExpr { lhs, rhs, .. }
        | Expr::AssignExpr { lhs, rhs, .. } => vec![Node::Expr(lhs), Node::Expr(rhs)],
        Expr::Membership { key, value, collection, .. } => {
            [Some(value), Some(collection), key.as_ref()].into_iter().flatten().map(node).collect()
        }
    }
}
