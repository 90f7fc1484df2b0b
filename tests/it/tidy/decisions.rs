//! Where a task is decided: an arm on a task stands in few files, so that a new task is written in these and nowhere else.

use super::source::{Source, Token};

/// The files of the root package with a match arm on a task, each with the reason. Everything else asks what they return:
/// docs/architecture.md, "Where a task is decided".
const DECIDE_A_TASK: [(&str, &str); 5] = [
    ("config/task_facts.rs", "what is true of a task without data: the checks of a file read it"),
    ("data/target.rs", "what is read from records: the data know no type of a task"),
    (
        "export/exported_task.rs",
        "which type says what other tools have of a task: `tasks` knows no export",
    ),
    ("page/shown_task.rs", "which type shows the rows of a task: `tasks` knows no page"),
    ("tasks.rs", "which type finds the rows of a task, measures and predicts"),
];

/// Returns the arms on a task outside those files, and those files that have none.
pub(super) fn arms_on_tasks(sources: &[Source]) -> Vec<String> {
    let listed = |path: &str| DECIDE_A_TASK.iter().any(|(known, _)| *known == path);
    let mut complaints = Vec::new();
    for source in sources.iter().filter(|source| !listed(&source.path)) {
        for line in arms(&source.tokens()) {
            complaints.push(source.complain(
                line,
                "decides a task: ask `Task::facts`, `task_kind`, `exported_task`, `shown_task` or `DataTask`",
            ));
        }
    }
    for (path, _) in DECIDE_A_TASK {
        let source = sources.iter().find(|source| source.path == path);
        if source.is_none_or(|source| arms(&source.tokens()).is_empty()) {
            complaints.push(format!("{path} is listed and decides no task"));
        }
    }
    complaints
}

/// Returns the lines of patterns, and of conditions of arms, that name a task.
fn arms(tokens: &[Token<'_>]) -> Vec<usize> {
    let names_a_task = |three: &[Token<'_>]| {
        ["Task", "DataTask"].contains(&three[0].text)
            && three[1].text == "::"
            && three[2].text.starts_with(|letter: char| letter.is_ascii_uppercase())
    };
    let starts =
        (0..tokens.len().saturating_sub(2)).filter(|at| names_a_task(&tokens[*at..at + 3]));
    starts.filter(|at| leads_to_an_arrow(&tokens[at + 3..])).map(|at| tokens[at].line).collect()
}

/// Returns whether what follows belongs to a pattern: an arrow comes before the expression or the list around it ends.
fn leads_to_an_arrow(tokens: &[Token<'_>]) -> bool {
    let (mut depth, mut outermost_comma) = (0, i32::MAX);
    for (at, token) in tokens.iter().enumerate() {
        match token.text {
            "(" | "[" => depth += 1,
            ")" | "]" => depth -= 1,
            "," => outermost_comma = depth.min(outermost_comma),
            ";" | "{" | "}" => return false,
            "=" if tokens.get(at + 1).is_some_and(|next| next.text == ">") => {
                return outermost_comma > depth;
            }
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::source;

    fn lines(text: &str) -> Vec<usize> {
        arms(&source::tokens(text))
    }

    #[test]
    fn patterns_and_conditions_of_arms_are_found() {
        assert_eq!(
            lines("match task {\n Task::Qa => 1,\n Task::Tokens\n | Task::Qa => 2 }"),
            [2, 3, 4]
        );
        assert_eq!(lines("match (a, b) { (DataTask::Qa, Some(_), _) => 1, _ => 2 }"), [1]);
        assert_eq!(lines("match a { Some(Task::Qa) => 1, _ if b == Task::Tokens => 2 }"), [1, 1]);
    }

    #[test]
    fn values_and_other_types_are_no_arms() {
        let text = "match a { A => f(Task::Qa), B => Task::Qa, C => g(Task::Qa, 1), D => 4 }";
        assert!(lines(text).is_empty());
        assert!(lines("if task == Task::Qa { f() } match a { A => 1 }").is_empty());
        assert!(
            lines("let a = matches!(task, Task::Qa | Task::Tokens); match b { C => 1 }").is_empty()
        );
        assert!(lines("match a { TaskMetrics::Qa(_) => 1, Task::new => 2 }").is_empty());
        assert!(lines("fn f() -> Task { Task::Qa }").is_empty());
    }

    #[test]
    fn a_file_that_decides_a_task_must_be_listed_and_a_listed_one_must_decide_one() {
        let file =
            |path: &str, text: &str| Source { root: "src", path: path.into(), text: text.into() };
        let arm = "match task { Task::Qa => 1, _ => 2 }";
        let mut sources: Vec<Source> =
            DECIDE_A_TASK.iter().map(|(path, _)| file(path, arm)).collect();
        assert!(arms_on_tasks(&sources).is_empty());
        sources.push(file("report/chart.rs", arm));
        sources[0].text.clear();
        let complaints = arms_on_tasks(&sources);
        assert_eq!(complaints.len(), 2, "{complaints:?}");
        assert!(complaints[0].starts_with("src/report/chart.rs:1: decides a task"));
        assert!(complaints[1].starts_with("config/task_facts.rs is listed"));
    }
}
