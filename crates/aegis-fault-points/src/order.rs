//! What a test orders, as one line: `kill registry.write before 2`.

use std::fmt;
use std::str::FromStr;

/// On which side of the effect a point is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum When {
    Before,
    After,
}

/// An error that the effect is to fail with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Errno {
    /// The disk is full.
    NoSpace,
    /// This process has no descriptor left.
    TooManyFiles,
    /// The file system may not be written to.
    ReadOnly,
}

/// What is to happen at a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// The process ends as by `kill -9`.
    Kill,
    /// The process stops as by `kill -STOP`, for the test to act and to let it
    /// go on.
    Hold,
    /// The effect fails; only before it.
    Fail(Errno),
}

/// What is to happen at which passage of which point.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Order {
    pub action: Action,
    pub name: String,
    pub when: When,
    /// 1 for the first passage after the order was given.
    pub nth: u32,
}

/// A line that is no order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAnOrder;

impl fmt::Display for NotAnOrder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an order is ACTION NAME before|after NUMBER")
    }
}

impl std::error::Error for NotAnOrder {}

impl Errno {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::NoSpace, Self::TooManyFiles, Self::ReadOnly];

    /// The kernel's number.
    #[must_use]
    pub fn number(self) -> i32 {
        let errno = match self {
            Self::NoSpace => rustix::io::Errno::NOSPC,
            Self::TooManyFiles => rustix::io::Errno::MFILE,
            Self::ReadOnly => rustix::io::Errno::ROFS,
        };
        errno.raw_os_error()
    }
}

impl fmt::Display for When {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Before => "before",
            Self::After => "after",
        })
    }
}

impl fmt::Display for Action {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Kill => "kill",
            Self::Hold => "hold",
            Self::Fail(Errno::NoSpace) => "ENOSPC",
            Self::Fail(Errno::TooManyFiles) => "EMFILE",
            Self::Fail(Errno::ReadOnly) => "EROFS",
        })
    }
}

impl fmt::Display for Order {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            action,
            name,
            when,
            nth,
        } = self;
        write!(formatter, "{action} {name} {when} {nth}")
    }
}

impl FromStr for When {
    type Err = NotAnOrder;

    fn from_str(text: &str) -> Result<Self, NotAnOrder> {
        match text {
            "before" => Ok(Self::Before),
            "after" => Ok(Self::After),
            _ => Err(NotAnOrder),
        }
    }
}

impl FromStr for Action {
    type Err = NotAnOrder;

    fn from_str(text: &str) -> Result<Self, NotAnOrder> {
        let all = [Self::Kill, Self::Hold].into_iter();
        let mut all = all.chain(Errno::ALL.map(Self::Fail));
        all.find(|action| action.to_string() == text)
            .ok_or(NotAnOrder)
    }
}

impl FromStr for Order {
    type Err = NotAnOrder;

    fn from_str(line: &str) -> Result<Self, NotAnOrder> {
        let mut words = line.split_whitespace();
        let mut word = || words.next().ok_or(NotAnOrder);
        let order = Self {
            action: word()?.parse()?,
            name: word()?.to_owned(),
            when: word()?.parse()?,
            nth: word()?.parse().map_err(|_| NotAnOrder)?,
        };
        words.next().map_or(Ok(order), |_| Err(NotAnOrder))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_read_back() {
        for line in [
            "kill registry.write before 1",
            "hold qemu.spawn after 12",
            "EMFILE file.rename before 3",
        ] {
            let order: Order = line.parse().unwrap();
            assert_eq!(order.to_string(), line);
        }
        for line in ["", "kill x before", "die x before 1", "kill x before 1 2"] {
            assert_eq!(line.parse::<Order>(), Err(NotAnOrder), "{line:?}");
        }
    }
}
