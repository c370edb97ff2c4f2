//! A walk over encoded keys from both ends of a range, through the changes of a batch where there is one.
//!
//! One cursor serves both ends: a cursor reads one state of the database, so both ends see the same. Where the walk
//! changes its direction, the cursor is placed anew.
//!
//! Invariants:
//! - what is left to be handed out is what lies from `low` to before `high`; each step takes its key out of it, so that
//!   the two ends cannot hand out a key twice or pass each other;
//! - a cursor's end is believed only where [`Cursor`] has asked for its status, which it does at each movement.

use super::bounds::Span;
use super::overlay::Overlay;
use crate::error::Result;
use crate::rocks::Cursor;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Forward,
    Backward,
}

/// Where the cursor stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// Anywhere.
    Nowhere,
    /// On the next entry of that direction, which is not handed out.
    Before(Direction),
    /// On the entry of that direction that was handed out last.
    On(Direction),
}

pub(super) struct Walker<'a> {
    cursor: Cursor<'a>,
    overlay: Option<&'a Overlay>,
    span: Span,
    low: Vec<u8>,
    high: Option<Vec<u8>>,
    standing: Standing,
}

impl<'a> Walker<'a> {
    /// A walk over `span`, which is what the cursor is bounded to.
    pub(super) fn new(cursor: Cursor<'a>, overlay: Option<&'a Overlay>, span: Span) -> Self {
        let (low, high) = (span.low.clone(), span.high.clone());
        Walker { cursor, overlay, span, low, high, standing: Standing::Nowhere }
    }

    /// What is next in that direction, encoded key and value; `None` where nothing is left.
    #[inline]
    pub(super) fn advance(&mut self, direction: Direction) -> Result<Option<(&[u8], &[u8])>> {
        let runs_through = self.overlay.is_none() && self.standing == Standing::On(Direction::Forward);
        if runs_through && direction == Direction::Forward { self.run_on() } else { self.step(direction) }
    }

    /// As a step forward after another one, through no batch: with few calls into RocksDB, since this is what scans do.
    #[inline]
    fn run_on(&mut self) -> Result<Option<(&[u8], &[u8])>> {
        self.standing = Standing::Nowhere;
        let entry = self.cursor.next_entry()?;
        let Some(entry) = entry.filter(|(key, _)| self.high.as_deref().is_none_or(|high| *key < high)) else {
            return Ok(None);
        };
        self.low.clear();
        self.low.extend_from_slice(entry.0);
        self.low.push(0);
        self.standing = Standing::On(Direction::Forward);
        Ok(Some(entry))
    }

    fn step(&mut self, direction: Direction) -> Result<Option<(&[u8], &[u8])>> {
        if self.high.as_ref().is_some_and(|high| *high <= self.low) {
            return Ok(None);
        }
        let placed = match direction {
            Direction::Forward => self.place_forward(),
            Direction::Backward => self.place_backward(),
        };
        let stored = match placed {
            Ok(stored) => stored,
            Err(error) => {
                self.standing = Standing::Nowhere;
                return Err(error);
            }
        };
        self.standing = if stored { Standing::Before(direction) } else { Standing::Nowhere };
        let stored = self.cursor.key().filter(|_| stored);
        let put = self.overlay.and_then(|overlay| match direction {
            Direction::Forward => overlay.first_put(&self.low, self.high.as_deref()),
            Direction::Backward => overlay.last_put(&self.low, self.high.as_deref()),
        });
        // The two never meet: the cursor passes over what the batch puts.
        let put_is_next = |stored: &[u8], put: &[u8]| (put < stored) == (direction == Direction::Forward);
        let (key, put) = match (stored, put) {
            (None, None) => return Ok(None),
            (Some(stored), None) => (stored, None),
            (Some(stored), Some((key, _))) if !put_is_next(stored, key) => (stored, None),
            (_, Some((key, value))) => (key, Some((key, value))),
        };
        match direction {
            Direction::Forward => {
                self.low.clear();
                self.low.extend_from_slice(key);
                self.low.push(0);
            }
            Direction::Backward => {
                let high = self.high.get_or_insert_default();
                high.clear();
                high.extend_from_slice(key);
            }
        }
        if put.is_some() {
            return Ok(put);
        }
        self.standing = Standing::On(direction);
        Ok(self.cursor.entry())
    }

    /// Places the cursor on the first entry that is left and that the batch does not hide; `false`: there is none.
    fn place_forward(&mut self) -> Result<bool> {
        match self.standing {
            Standing::On(Direction::Forward) => self.cursor.next()?,
            Standing::Before(Direction::Forward) => {}
            _ => self.cursor.seek(&self.low)?,
        }
        loop {
            let Some(key) = self.cursor.key() else { return Ok(false) };
            if self.high.as_deref().is_some_and(|high| key >= high) {
                return Ok(false);
            }
            let Some(overlay) = self.overlay else { return Ok(true) };
            match overlay.deleted_around(key) {
                _ if overlay.puts(key) => self.cursor.next()?,
                None => return Ok(true),
                Some((_, None)) => return Ok(false),
                // One deleted key: its neighbour is nearer than a seek.
                Some((start, Some(end))) if start == key && end.len() == key.len() + 1 => self.cursor.next()?,
                Some((_, Some(end))) => self.cursor.seek(end)?,
            }
        }
    }

    /// Places the cursor on the last entry that is left and that the batch does not hide; `false`: there is none.
    fn place_backward(&mut self) -> Result<bool> {
        match self.standing {
            Standing::On(Direction::Backward) => self.cursor.prev()?,
            Standing::Before(Direction::Backward) => {}
            _ => match &self.high {
                Some(high) => seek_before(&mut self.cursor, high)?,
                None => self.cursor.seek_last()?,
            },
        }
        loop {
            let Some(key) = self.cursor.key() else { return Ok(false) };
            if key < &self.low[..] {
                return Ok(false);
            }
            let Some(overlay) = self.overlay else { return Ok(true) };
            match overlay.deleted_around(key) {
                _ if overlay.puts(key) => self.cursor.prev()?,
                None => return Ok(true),
                Some((start, _)) if start == key => self.cursor.prev()?,
                Some((start, _)) => self.cursor.seek_for_prev(start)?,
            }
        }
    }

    /// Forward goes on with the first entry at or after `key`, within the range that the walk was made for.
    pub(super) fn seek(&mut self, key: Vec<u8>) {
        self.low = key.max(self.span.low.clone());
        self.standing = Standing::Nowhere;
    }

    /// Backward goes on with the last entry at or before `key`, within the range that the walk was made for.
    pub(super) fn seek_back(&mut self, mut key: Vec<u8>) {
        key.push(0);
        self.high = Some(match &self.span.high {
            Some(high) => key.min(high.clone()),
            None => key,
        });
        self.standing = Standing::Nowhere;
    }
}

fn seek_before(cursor: &mut Cursor<'_>, key: &[u8]) -> Result<()> {
    cursor.seek_for_prev(key)?;
    if cursor.key() == Some(key) {
        cursor.prev()?;
    }
    Ok(())
}
