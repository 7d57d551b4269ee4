//! Looks at every state that can be reached, the nearest first.

use std::{
    collections::{BTreeMap, HashMap, VecDeque, hash_map::Entry},
    rc::Rc,
};

use nereid_core::jobs::JobStatus;

use crate::{
    properties::{Property, broken_by},
    steps::Step,
    world::{State, World},
};

/// A way to break a promise, of the fewest steps there are.
pub(crate) struct Counterexample {
    pub(crate) property: Property,
    pub(crate) steps: Vec<(Step, Rc<State>)>,
}

/// What a search has seen.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) states: usize,
    pub(crate) steps: usize,
    /// Most steps that it takes to get anywhere.
    pub(crate) depth: usize,
    /// Changes of status, and how often each.
    pub(crate) transitions: BTreeMap<(JobStatus, JobStatus), usize>,
    /// Writes that were refused because their attempt was no longer current.
    pub(crate) refused: usize,
}

struct Search<'a> {
    world: &'a World,
    /// The only promise whose breach counts; any, if none is named.
    wanted: Option<Property>,
    states: Vec<Rc<State>>,
    index: HashMap<Rc<State>, usize>,
    /// How each state was first reached.
    from: Vec<Option<(usize, Step)>>,
    /// Whence each state is reached by steps of the system itself.
    well: Vec<Vec<usize>>,
    depths: Vec<usize>,
    seen: Seen,
}

/// Takes every step from every state until a promise breaks: any, or the one that is `wanted`.
pub(crate) fn search(world: &World, wanted: Option<Property>) -> Result<Seen, Counterexample> {
    let mut search = Search {
        world,
        wanted,
        states: Vec::new(),
        index: HashMap::new(),
        from: Vec::new(),
        well: Vec::new(),
        depths: Vec::new(),
        seen: Seen::default(),
    };
    search.visit(world.start(), None);
    let mut next = 0;
    while next < search.states.len() {
        search.leave(next)?;
        next += 1;
    }
    search.every_job_can_come_to_rest()?;
    search.seen.states = search.states.len();
    search.seen.depth = search.depths.last().copied().unwrap_or_default();
    Ok(search.seen)
}

impl Search<'_> {
    /// Takes every step from one state.
    fn leave(&mut self, at: usize) -> Result<(), Counterexample> {
        let before = Rc::clone(&self.states[at]);
        for (step, after) in self.world.steps(&before) {
            self.seen.note(&before, step, &after);
            let broken = broken_by(&before, step, &after);
            let to = self.visit(after, Some((at, step)));
            if let Some(property) = broken
                && self.wanted.is_none_or(|wanted| wanted == property)
            {
                let mut steps = self.way_to(at);
                steps.push((step, Rc::clone(&self.states[to])));
                return Err(Counterexample { property, steps });
            }
            if step.goes_well() {
                self.well[to].push(at);
            }
        }
        Ok(())
    }

    fn visit(&mut self, state: State, from: Option<(usize, Step)>) -> usize {
        let (new, state) = (self.states.len(), Rc::new(state));
        let entry = match self.index.entry(state) {
            Entry::Occupied(known) => return *known.get(),
            Entry::Vacant(entry) => entry,
        };
        self.states.push(Rc::clone(entry.key()));
        entry.insert(new);
        self.depths
            .push(from.map_or(0, |(at, _)| self.depths[at] + 1));
        self.from.push(from);
        self.well.push(Vec::new());
        new
    }

    fn way_to(&self, mut at: usize) -> Vec<(Step, Rc<State>)> {
        let mut steps = Vec::new();
        while let Some((from, step)) = self.from[at] {
            steps.push((step, Rc::clone(&self.states[at])));
            at = from;
        }
        steps.reverse();
        steps
    }

    /// Whatever has happened: if all goes well from here, the job ends or is put aside.
    ///
    /// Goes back from the states of rest by the steps that the system takes by itself; a state
    /// that is not met has no such way.
    fn every_job_can_come_to_rest(&self) -> Result<(), Counterexample> {
        let rests =
            |s: &State| !matches!(s.database.status, JobStatus::Queued | JobStatus::Running);
        let mut can: Vec<bool> = self.states.iter().map(|s| rests(s)).collect();
        let mut met: VecDeque<usize> = (0..can.len()).filter(|&at| can[at]).collect();
        while let Some(at) = met.pop_front() {
            for &from in &self.well[at] {
                if !std::mem::replace(&mut can[from], true) {
                    met.push_back(from);
                }
            }
        }
        match can.iter().position(|can| !can) {
            None => Ok(()),
            Some(stuck) => Err(Counterexample {
                property: Property::NoJobRunsForEver,
                steps: self.way_to(stuck),
            }),
        }
    }
}

impl Seen {
    fn note(&mut self, before: &State, step: Step, after: &State) {
        self.steps += 1;
        let (was, is) = (before.database.status, after.database.status);
        if was != is && step != Step::Failover {
            *self.transitions.entry((was, is)).or_default() += 1;
        }
        self.refused += usize::from(step.is_refused());
    }
}

impl std::fmt::Display for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            states,
            steps,
            depth,
            refused,
            ..
        } = self;
        write!(
            f,
            "{states} states, {steps} steps, at most {depth} from the start"
        )?;
        write!(f, "; {refused} late writes refused")
    }
}

impl std::fmt::Display for Counterexample {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(
            f,
            "{:?} is broken in {} steps:",
            self.property,
            self.steps.len()
        )?;
        for (number, (step, after)) in self.steps.iter().enumerate() {
            writeln!(f, "{:3}. {:80} | {after}", number + 1, format!("{step:?}"))?;
        }
        Ok(())
    }
}
