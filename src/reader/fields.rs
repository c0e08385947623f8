//! Several fields of a record at once: `meta` is gone through once for all paths into it.

use super::field::{Field, PATH_MAX, Place, Step, Value, items};
use super::record::{Record, key};
use crate::record::json::{Scanner, Stop};

/// Fields made ready for many records.
#[derive(Debug)]
pub(super) struct Fields {
    /// Those that are no paths into `meta`, and their numbers.
    others: Vec<(usize, Field)>,
    paths: Branch,
    count: usize,
}

/// What paths have in common, and where they part.
#[derive(Debug, Default)]
struct Branch {
    /// The numbers of the fields whose path ends here.
    ends: Vec<usize>,
    keys: Vec<(String, Branch)>,
    items: Vec<(usize, Branch)>,
}

impl Fields {
    pub(super) fn new(fields: &[Field]) -> Self {
        let (mut others, mut paths) = (Vec::new(), Branch::default());
        for (number, field) in fields.iter().enumerate() {
            match field {
                Field::Meta(steps) if steps.len() <= PATH_MAX => paths.add(steps, number),
                // No value lies so deep.
                Field::Meta(_) => {}
                other => others.push((number, other.clone())),
            }
        }
        Self { others, paths, count: fields.len() }
    }

    /// The value of each field, as [`Field::last`] has it; and whether the record is ambiguous, as a key of a path is there more than
    /// once in one object.
    pub(super) fn last<'v>(&self, record: &'v Record<'_>, place: &Place<'v>) -> (Vec<Option<Value<'v>>>, bool) {
        let mut values = vec![None; self.count];
        let mut is_ambiguous = false;
        for (number, field) in &self.others {
            let (last, repeated) = field.last_of(record, place);
            values[*number] = last;
            is_ambiguous |= repeated;
        }
        let mut walk = Walk { scanner: Scanner::over(record.meta), values, begun: Vec::new(), is_ambiguous };
        if !self.paths.is_leaf() {
            // A record's `meta` is JSON; of one that somebody made up, what was found before its fault counts.
            let _whole = walk.to(&self.paths).is_ok();
        }
        (walk.values, walk.is_ambiguous)
    }
}

impl Branch {
    fn add(&mut self, steps: &[Step], number: usize) {
        let Some((step, rest)) = steps.split_first() else { return self.ends.push(number) };
        match step {
            Step::Key(name) => child(&mut self.keys, name).add(rest, number),
            Step::Item(item) => child(&mut self.items, item).add(rest, number),
        }
    }

    fn is_leaf(&self) -> bool {
        self.ends.is_empty() && self.keys.is_empty() && self.items.is_empty()
    }
}

fn child<'b, S: Clone + PartialEq>(children: &'b mut Vec<(S, Branch)>, step: &S) -> &'b mut Branch {
    let at = children.iter().position(|(other, _)| other == step).unwrap_or_else(|| {
        children.push((step.clone(), Branch::default()));
        children.len() - 1
    });
    &mut children[at].1
}

/// Whether two keys are equal. Most differ in their length or first byte, which takes no call.
fn is_equal(one: &str, other: &str) -> bool {
    one.len() == other.len() && one.as_bytes().first() == other.as_bytes().first() && one == other
}

/// A way through `meta` to the values at the ends of paths.
struct Walk<'v> {
    scanner: Scanner<'v>,
    values: Vec<Option<Value<'v>>>,
    /// Which branches have begun, in each of the objects around here.
    begun: Vec<usize>,
    is_ambiguous: bool,
}

impl<'v> Walk<'v> {
    /// Goes over the value that begins here, which lies where a branch begins.
    fn to(&mut self, branch: &Branch) -> Result<(), Stop> {
        let rest = self.scanner.rest();
        let start = self.scanner.offset();
        match self.scanner.peek() {
            Some(b'{') if !branch.keys.is_empty() => {
                let outside = self.begun.len();
                items(
                    self,
                    |walk| &mut walk.scanner,
                    b'}',
                    |walk, _| {
                        let name = key(&mut walk.scanner)?.value();
                        let Some(at) = branch.keys.iter().position(|(key, _)| is_equal(key, &name)) else {
                            return walk.scanner.value().map(|_| ());
                        };
                        let (_, branch) = &branch.keys[at];
                        if walk.begun[outside..].contains(&at) {
                            walk.is_ambiguous = true;
                            walk.forget(branch);
                        } else {
                            walk.begun.push(at);
                        }
                        walk.to(branch)
                    },
                )?;
                self.begun.truncate(outside);
            }
            Some(b'[') if !branch.items.is_empty() => {
                items(
                    self,
                    |walk| &mut walk.scanner,
                    b']',
                    |walk, number| match branch.items.iter().find(|(item, _)| *item == number) {
                        Some((_, branch)) => walk.to(branch),
                        None => walk.scanner.value().map(|_| ()),
                    },
                )?;
            }
            _ => {
                let value = Value::from(self.scanner.value()?);
                self.end(branch, &value);
                return Ok(());
            }
        }
        self.end(branch, &Value::Structured(rest[..self.scanner.offset() - start].into()));
        Ok(())
    }

    fn end(&mut self, branch: &Branch, value: &Value<'v>) {
        for number in &branch.ends {
            self.values[*number] = Some(value.clone());
        }
    }

    /// What came before under a key that is there again no longer counts.
    fn forget(&mut self, branch: &Branch) {
        for number in &branch.ends {
            self.values[*number] = None;
        }
        let (keys, items) =
            (branch.keys.iter().map(|(_, branch)| branch), branch.items.iter().map(|(_, branch)| branch));
        keys.chain(items).for_each(|branch| self.forget(branch));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::reader::spelling::{Spelling, any_model};

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1024, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn fields_together_are_what_they_are_alone(
            paths in prop::collection::vec("(\\.[abc]|\\[[01]\\]){0,4}", 1..6), model in any_model(), seed: u64,
        ) {
            let names = paths.iter().map(|path| format!("meta{path}")).chain(["event".to_owned(), "rank".to_owned()]);
            let fields: Vec<_> = names.map(|name| Field::parse(&name).unwrap()).collect();
            let line = model.spell(&mut Spelling::random(seed));
            let record = Record::parse(line.as_bytes()).unwrap();
            let place = Place { segment: "s", index: 7, rank: 3 };
            let alone: Vec<_> = fields.iter().map(|field| field.last(&record, &place)).collect();
            let (together, is_ambiguous) = Fields::new(&fields).last(&record, &place);
            prop_assert_eq!(together, alone, "{}", line);
            // Alone, a path is not gone where its last key is nowhere, whatever is repeated on the way.
            let is_alone = fields.iter().any(|field| field.each(&record, &place, |_| {}));
            prop_assert!(is_ambiguous || !is_alone, "{}", line);
        }
    }
}
