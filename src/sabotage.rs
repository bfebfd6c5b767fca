//! Faults that are built in on purpose, so that the checker of tests/checker, and the care home of tests/policy,
//! are themselves checked: each must be caught. Without the features of Cargo.toml that name them nothing of it is in the binary.

/// A fault, where it is built in, and what comes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Queries find rows that the policy hides.
    AnswerOthers,
    /// The source may forget what the bus does not hold yet: what a producer then dies over is lost.
    ConfirmEarly,
    /// A resuming client goes on one event too far.
    CursorOffByOne,
    /// Who may not see a row any more is not told that it left.
    KeepLeft,
    /// A reply is sent before the events that its read had seen.
    ReplyBeforePosition,
    /// A reply reaches the whole group.
    ReplyToGroup,
    /// Another history of the bus gets the same name.
    ReuseEpoch,
    /// Events are sent of rows that the policy hides.
    ShowOthers,
    /// Now and then an event is not shown to anybody.
    SkipEvent,
    /// Now and then two events change places.
    SwapTwo,
    /// The end of a transaction stands behind the beginning of the next one.
    TearTransaction,
}

impl Fault {
    /// Its name, as in Cargo.toml after `sabotage-`, and in ROWCAST_SABOTAGE.
    #[cfg(feature = "sabotage")]
    fn name(self) -> &'static str {
        match self {
            Self::AnswerOthers => "answer-others",
            Self::ConfirmEarly => "confirm-early",
            Self::CursorOffByOne => "cursor-off-by-one",
            Self::KeepLeft => "keep-left",
            Self::ReplyBeforePosition => "reply-before-position",
            Self::ReplyToGroup => "reply-to-group",
            Self::ReuseEpoch => "reuse-epoch",
            Self::ShowOthers => "show-others",
            Self::SkipEvent => "skip-event",
            Self::SwapTwo => "swap-two",
            Self::TearTransaction => "tear-transaction",
        }
    }
}

/// Whether this fault is to be acted out.
#[cfg(feature = "sabotage")]
pub fn active(fault: Fault) -> bool {
    static CHOSEN: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    let chosen = CHOSEN.get_or_init(|| std::env::var("ROWCAST_SABOTAGE").ok());
    chosen.as_deref() == Some(fault.name())
}

/// Whether this fault is to be acted out.
#[cfg(not(feature = "sabotage"))]
pub const fn active(fault: Fault) -> bool {
    match fault {
        Fault::AnswerOthers => cfg!(feature = "sabotage-answer-others"),
        Fault::ConfirmEarly => cfg!(feature = "sabotage-confirm-early"),
        Fault::CursorOffByOne => cfg!(feature = "sabotage-cursor-off-by-one"),
        Fault::KeepLeft => cfg!(feature = "sabotage-keep-left"),
        Fault::ReplyBeforePosition => cfg!(feature = "sabotage-reply-before-position"),
        Fault::ReplyToGroup => cfg!(feature = "sabotage-reply-to-group"),
        Fault::ReuseEpoch => cfg!(feature = "sabotage-reuse-epoch"),
        Fault::ShowOthers => cfg!(feature = "sabotage-show-others"),
        Fault::SkipEvent => cfg!(feature = "sabotage-skip-event"),
        Fault::SwapTwo => cfg!(feature = "sabotage-swap-two"),
        Fault::TearTransaction => cfg!(feature = "sabotage-tear-transaction"),
    }
}
