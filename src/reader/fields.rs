//! Several fields of a record at once: `meta` is gone through once for all paths into it.

use super::field::{Field, PATH_MAX, Place, Step, Value};
use super::record::Record;
use super::skim::Skim;

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
    /// once in one object. The values come in the room of others that nobody needs any more.
    pub(super) fn last<'v>(
        &self,
        record: &'v Record<'_>,
        place: &Place<'v>,
        room: Vec<Option<Value<'_>>>,
    ) -> (Vec<Option<Value<'v>>>, bool) {
        let mut values = emptied(room);
        values.resize(self.count, None);
        let mut is_ambiguous = false;
        for (number, field) in &self.others {
            let (last, repeated) = field.last_of(record, place);
            values[*number] = last;
            is_ambiguous |= repeated;
        }
        let mut walk = Walk { skim: Skim::over(record.meta, record.strings), values, begun: Vec::new(), is_ambiguous };
        if !self.paths.is_leaf() {
            // A record's `meta` is JSON; of what is none, what was found before it ended counts.
            let _whole = walk.to(&self.paths);
        }
        (walk.values, walk.is_ambiguous)
    }
}

/// The room of values, for others.
pub(super) fn emptied<'v>(mut values: Vec<Option<Value<'_>>>) -> Vec<Option<Value<'v>>> {
    values.clear();
    values.into_iter().map(|_| None).collect()
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

/// A way through `meta` to the values at the ends of paths.
struct Walk<'v> {
    skim: Skim<'v>,
    values: Vec<Option<Value<'v>>>,
    /// Which branches have begun, in each of the objects around here.
    begun: Vec<usize>,
    is_ambiguous: bool,
}

impl<'v> Walk<'v> {
    /// Goes over the value that begins here, which lies where a branch begins.
    fn to(&mut self, branch: &Branch) -> Option<()> {
        let whole = self.skim.clone();
        match self.skim.peek()? {
            b'{' if !branch.keys.is_empty() => {
                let outside = self.begun.len();
                let mut more = self.skim.enter();
                while more {
                    let name = self.skim.key()?;
                    match branch.keys.iter().position(|(key, _)| name.is(key)) {
                        Some(at) => self.enter(at, &branch.keys[at].1, outside)?,
                        None => _ = self.skim.skip()?,
                    }
                    more = self.skim.next_item();
                }
                self.begun.truncate(outside);
            }
            b'[' if !branch.items.is_empty() => {
                let (mut number, mut more) = (0, self.skim.enter());
                while more {
                    match branch.items.iter().find(|(item, _)| *item == number) {
                        Some((_, branch)) => self.to(branch)?,
                        None => _ = self.skim.skip()?,
                    }
                    (number, more) = (number + 1, self.skim.next_item());
                }
            }
            _ if branch.ends.is_empty() => {
                self.skim.skip()?;
                return Some(());
            }
            _ => {
                let value = self.skim.value()?;
                self.end(branch, value);
                return Some(());
            }
        }
        if !branch.ends.is_empty() {
            let value = whole.clone().value()?;
            self.end(branch, value);
        }
        Some(())
    }

    /// Goes over the value of a key at which a branch begins.
    fn enter(&mut self, key: usize, branch: &Branch, outside: usize) -> Option<()> {
        if self.begun[outside..].contains(&key) {
            self.is_ambiguous = true;
            self.forget(branch);
        } else {
            self.begun.push(key);
        }
        self.to(branch)
    }

    fn end(&mut self, branch: &Branch, value: Value<'v>) {
        if let Some((last, others)) = branch.ends.split_last() {
            for number in others {
                self.values[*number] = Some(value.clone());
            }
            self.values[*last] = Some(value);
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
            let (together, is_ambiguous) = Fields::new(&fields).last(&record, &place, vec![Some(Value::Null); 9]);
            prop_assert_eq!(together, alone, "{}", line);
            // Alone, a path is not gone where its last key is nowhere, whatever is repeated on the way.
            let is_alone = fields.iter().any(|field| field.each(&record, &place, |_| {}));
            prop_assert!(is_ambiguous || !is_alone, "{}", line);
        }
    }
}
