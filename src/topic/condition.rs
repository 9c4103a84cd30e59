//! Conditions over topics such as `'news' in topics && !('sport' in topics)`.
//!
//! `!` binds closer than `&&`, and `&&` closer than `||`. A condition is turned into postfix form
//! with a stack on the heap, so brackets may be nested as deep as the body is long.

use thiserror::Error;

use super::TopicName;

/// Topics that one condition may name, repeated ones counted again.
pub const CONDITION_TOPICS_MAX: usize = 5;

/// A condition that parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    text: Box<str>,
    postfix: Vec<Step>,
}

/// One step of a condition in postfix form.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    InTopic(TopicName),
    Not,
    And,
    Or,
}

/// Why a text is no condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ConditionError {
    /// Something else was due at this byte.
    #[error("unexpected text at byte {0} of the condition")]
    Unexpected(usize),
    /// It ends too early, or a bracket is not closed.
    #[error("the condition is not complete")]
    Incomplete,
    /// Not a name that a topic can have.
    #[error("bad topic name at byte {0} of the condition")]
    BadTopic(usize),
    /// More topics than a condition may name.
    #[error("the condition names more than {CONDITION_TOPICS_MAX} topics")]
    TooManyTopics,
}

impl Condition {
    /// Reads a condition, in time that grows with its length and no faster.
    ///
    /// # Errors
    /// Where it stops making sense.
    pub fn parse(text: &str) -> Result<Self, ConditionError> {
        let mut parser = Parser::new(text);
        while parser.step()? {}
        parser.finish()
    }

    /// Whether it holds for a token that is subscribed as `is_subscribed` says.
    pub fn holds(&self, is_subscribed: impl Fn(&TopicName) -> bool) -> bool {
        let mut stack: Vec<bool> = Vec::with_capacity(CONDITION_TOPICS_MAX);
        for step in &self.postfix {
            let value = match step {
                Step::InTopic(topic) => is_subscribed(topic),
                Step::Not => !stack.pop().unwrap_or_default(),
                Step::And | Step::Or => {
                    let right = stack.pop().unwrap_or_default();
                    let left = stack.pop().unwrap_or_default();
                    match step {
                        Step::And => left && right,
                        _ => left || right,
                    }
                }
            };
            stack.push(value);
        }
        stack.pop().unwrap_or_default()
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The topics it names, each once, in the order of their names.
    #[must_use]
    pub fn topics(&self) -> Vec<TopicName> {
        let named = self.postfix.iter().filter_map(|step| match step {
            Step::InTopic(topic) => Some(topic.clone()),
            _ => None,
        });
        let mut topics: Vec<TopicName> = named.collect();
        topics.sort_unstable();
        topics.dedup();
        topics
    }

    /// The fewest topics of which everybody that it holds for has at least one. `None` if it holds
    /// for those, too, who have none.
    #[must_use]
    pub fn cover(&self) -> Option<Vec<TopicName>> {
        let topics = self.topics();
        let all = (1_u32 << topics.len()) - 1;
        let holds_with = |set: u32| {
            self.holds(|asked| {
                let place = topics.iter().position(|topic| topic == asked);
                place.is_some_and(|place| set >> place & 1 == 1)
            })
        };
        // A set covers if the condition holds for no set that has none of it.
        let covers = |cover: &u32| (0..=all).all(|set| set & cover != 0 || !holds_with(set));
        let smallest = (0..=all)
            .filter(covers)
            .min_by_key(|cover| cover.count_ones())?;
        let chosen = topics.iter().enumerate();
        Some(
            chosen
                .filter(|(place, _)| smallest >> place & 1 == 1)
                .map(|(_, topic)| topic.clone())
                .collect(),
        )
    }
}

/// What waits for its operand to be complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waiting {
    Bracket,
    Or,
    And,
    Not,
}

/// An operator-precedence parser: `waiting` is its stack, `postfix` its output.
struct Parser<'a> {
    text: &'a str,
    at: usize,
    is_operand_due: bool,
    topics: usize,
    waiting: Vec<Waiting>,
    postfix: Vec<Step>,
}

impl<'a> Parser<'a> {
    fn new(text: &'a str) -> Self {
        Self {
            text,
            at: 0,
            is_operand_due: true,
            topics: 0,
            waiting: Vec::new(),
            postfix: Vec::new(),
        }
    }

    /// Reads one part. `false` at the end of the text.
    fn step(&mut self) -> Result<bool, ConditionError> {
        self.skip_blanks();
        if self.at == self.text.len() {
            return Ok(false);
        }
        if self.is_operand_due {
            self.operand()?;
        } else {
            self.operator()?;
        }
        Ok(true)
    }

    fn operand(&mut self) -> Result<(), ConditionError> {
        if self.take("(") {
            self.waiting.push(Waiting::Bracket);
        } else if self.take("!") {
            self.negate();
        } else if self.take("'") {
            self.topic()?;
        } else {
            return Err(ConditionError::Unexpected(self.at));
        }
        Ok(())
    }

    fn operator(&mut self) -> Result<(), ConditionError> {
        if self.take(")") {
            self.close_bracket()?;
        } else if self.take("&&") {
            self.binary(Waiting::And);
        } else if self.take("||") {
            self.binary(Waiting::Or);
        } else {
            return Err(ConditionError::Unexpected(self.at));
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Condition, ConditionError> {
        self.settle_down_to(Waiting::Or);
        if self.is_operand_due || !self.waiting.is_empty() {
            return Err(ConditionError::Incomplete);
        }
        Ok(Condition {
            text: self.text.into(),
            postfix: self.postfix,
        })
    }

    /// Two negations in a row cancel out, so a condition stays as small as its topics are few.
    fn negate(&mut self) {
        if self.waiting.last() == Some(&Waiting::Not) {
            self.waiting.pop();
        } else {
            self.waiting.push(Waiting::Not);
        }
    }

    fn binary(&mut self, operator: Waiting) {
        self.settle_down_to(operator);
        self.waiting.push(operator);
        self.is_operand_due = true;
    }

    fn close_bracket(&mut self) -> Result<(), ConditionError> {
        self.settle_down_to(Waiting::Or);
        match self.waiting.pop() {
            Some(Waiting::Bracket) => Ok(()),
            _ => Err(ConditionError::Unexpected(self.at - 1)),
        }
    }

    /// Writes out all waiting operators that bind at least as close as `operator`.
    fn settle_down_to(&mut self, operator: Waiting) {
        while let Some(waiting) = self
            .waiting
            .pop_if(|waiting| *waiting as u8 >= operator as u8)
        {
            match waiting {
                Waiting::Or => self.postfix.push(Step::Or),
                Waiting::And => self.postfix.push(Step::And),
                Waiting::Not if self.postfix.last() == Some(&Step::Not) => {
                    self.postfix.pop();
                }
                Waiting::Not => self.postfix.push(Step::Not),
                Waiting::Bracket => {}
            }
        }
    }

    /// The rest of `'name' in topics`, behind the first quote.
    fn topic(&mut self) -> Result<(), ConditionError> {
        let start = self.at;
        let (name, _) = self
            .rest()
            .split_once('\'')
            .ok_or(ConditionError::Incomplete)?;
        let topic = TopicName::parse(name).ok_or(ConditionError::BadTopic(start))?;
        if self.topics == CONDITION_TOPICS_MAX {
            return Err(ConditionError::TooManyTopics);
        }
        self.topics += 1;
        self.at += name.len() + 1;
        self.word("in")?;
        self.word("topics")?;
        self.postfix.push(Step::InTopic(topic));
        self.is_operand_due = false;
        Ok(())
    }

    fn word(&mut self, word: &str) -> Result<(), ConditionError> {
        self.skip_blanks();
        let start = self.at;
        let is_whole = self.take(word) && !self.rest().starts_with(|next: char| is_letter(next));
        match is_whole {
            true => Ok(()),
            false if start == self.text.len() => Err(ConditionError::Incomplete),
            false => Err(ConditionError::Unexpected(start)),
        }
    }

    fn take(&mut self, part: &str) -> bool {
        let is_next = self.rest().starts_with(part);
        if is_next {
            self.at += part.len();
        }
        is_next
    }

    fn skip_blanks(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_ascii_start().len();
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }
}

fn is_letter(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn holds(text: &str, subscribed: &[&str]) -> bool {
        Condition::parse(text)
            .expect("a condition")
            .holds(|topic| subscribed.contains(&topic.as_str()))
    }

    #[test]
    fn operators_bind_as_they_should() {
        let or_and = "'a' in topics || 'b' in topics && 'c' in topics";
        assert!(holds(or_and, &["a"]));
        assert!(!holds(or_and, &["b"]));
        assert!(holds(or_and, &["b", "c"]));
        let brackets = "('a' in topics || 'b' in topics) && 'c' in topics";
        assert!(!holds(brackets, &["a"]));
        assert!(holds(brackets, &["a", "c"]));
        let not = "!'a' in topics && 'b' in topics";
        assert!(holds(not, &["b"]));
        assert!(!holds(not, &["a", "b"]));
        assert!(holds("!('a' in topics)", &[]));
        assert!(holds("!!!!('a'in\ttopics)", &["a"]));
        assert!(!holds("!(!(!'a' in topics))", &["a"]));
        assert!(holds("!('a' in topics || 'b' in topics)", &[]));
        assert!(!holds("!('a' in topics || 'b' in topics)", &["b"]));
    }

    #[test]
    fn topics_are_named_once() {
        let text = "'b' in topics && 'a' in topics || 'b' in topics";
        let topics = Condition::parse(text).expect("a condition").topics();
        let names: Vec<&str> = topics.iter().map(TopicName::as_str).collect();
        assert_eq!(names, ["a", "b"]);
    }

    #[test]
    fn what_is_no_condition_is_refused_where_it_stops_making_sense() {
        use ConditionError::{BadTopic, Incomplete, TooManyTopics, Unexpected};
        let six = ["'a' in topics"; 6].join("||");
        for (text, error) in [
            ("", Incomplete),
            ("   ", Incomplete),
            ("'a' in topics &&", Incomplete),
            ("('a' in topics", Incomplete),
            ("!", Incomplete),
            ("'a", Incomplete),
            ("'a'", Incomplete),
            ("'a' in", Incomplete),
            ("'a' in topics)", Unexpected(13)),
            ("()", Unexpected(1)),
            ("'a' in topics 'b' in topics", Unexpected(14)),
            ("'a' in topics & 'b' in topics", Unexpected(14)),
            ("'a' IN topics", Unexpected(4)),
            ("'a' intopics", Unexpected(4)),
            ("'a' in topicsé", Unexpected(7)),
            ("a in topics", Unexpected(0)),
            ("\"a\" in topics", Unexpected(0)),
            ("&& 'a' in topics", Unexpected(0)),
            ("'' in topics", BadTopic(1)),
            ("'a b' in topics", BadTopic(1)),
            (&six, TooManyTopics),
        ] {
            assert_eq!(Condition::parse(text), Err(error), "{text}");
        }
    }

    #[test]
    fn brackets_may_be_deep() {
        let deep =
            |depth: usize| format!("{}'a' in topics{}", "!(".repeat(depth), ")".repeat(depth));
        assert!(holds(&deep(100_000), &["a"]));
        let condition = Condition::parse(&deep(100_001)).expect("a condition");
        assert_eq!(condition.postfix.len(), 2, "negations cancel out");
    }

    /// A condition as a tree, with its own opinion on whether it holds.
    #[derive(Debug, Clone)]
    enum Tree {
        Topic(usize),
        Not(Box<Tree>),
        And(Box<Tree>, Box<Tree>),
        Or(Box<Tree>, Box<Tree>),
    }

    impl Tree {
        fn holds(&self, subscribed: u8) -> bool {
            match self {
                Self::Topic(index) => subscribed >> index & 1 == 1,
                Self::Not(inner) => !inner.holds(subscribed),
                Self::And(left, right) => left.holds(subscribed) && right.holds(subscribed),
                Self::Or(left, right) => left.holds(subscribed) || right.holds(subscribed),
            }
        }

        fn topics(&self) -> usize {
            match self {
                Self::Topic(_) => 1,
                Self::Not(inner) => inner.topics(),
                Self::And(left, right) | Self::Or(left, right) => left.topics() + right.topics(),
            }
        }

        /// Writes brackets only where the operators need them.
        fn write(&self) -> String {
            let bracketed = |tree: &Self, inside: bool| match inside {
                true => format!("({})", tree.write()),
                false => tree.write(),
            };
            let is_or = |tree: &Self| matches!(tree, Self::Or(..));
            match self {
                Self::Topic(index) => format!("'{index}' in topics"),
                Self::Not(inner) => {
                    let is_binary = matches!(**inner, Self::And(..) | Self::Or(..));
                    format!("!{}", bracketed(inner, is_binary))
                }
                Self::And(left, right) => format!(
                    "{} && {}",
                    bracketed(left, is_or(left)),
                    bracketed(right, is_or(right))
                ),
                Self::Or(left, right) => format!("{} || {}", left.write(), right.write()),
            }
        }
    }

    fn tree() -> impl Strategy<Value = Tree> {
        let leaf = (0..3_usize).prop_map(Tree::Topic);
        leaf.prop_recursive(6, 24, 2, |inner| {
            prop_oneof![
                inner.clone().prop_map(|tree| Tree::Not(Box::new(tree))),
                (inner.clone(), inner.clone())
                    .prop_map(|(left, right)| Tree::And(Box::new(left), Box::new(right))),
                (inner.clone(), inner)
                    .prop_map(|(left, right)| Tree::Or(Box::new(left), Box::new(right))),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_condition_holds_as_its_tree_does(tree in tree()) {
            let parsed = Condition::parse(&tree.write());
            if tree.topics() > CONDITION_TOPICS_MAX {
                prop_assert_eq!(parsed, Err(ConditionError::TooManyTopics));
                return Ok(());
            }
            let condition = parsed.expect("a condition");
            for subscribed in 0..8_u8 {
                let is_subscribed = |topic: &TopicName| {
                    topic.as_str().parse::<u32>().is_ok_and(|index| subscribed >> index & 1 == 1)
                };
                prop_assert_eq!(condition.holds(is_subscribed), tree.holds(subscribed));
            }
        }

        #[test]
        fn no_text_makes_it_panic(text in "[a'()!&| intopcs]{0,40}|.{0,20}") {
            let _ = Condition::parse(&text);
        }
    }
}
