//! Long work of the partitions of one thread, such as pages of replays: one turn at a time.

use actix::{Actor, AsyncContext, Context, Handler, Message, Recipient, fut::wrap_future};
use tokio::task::yield_now;

use super::ContinueChanges;

/// Gives turns for long work to the partitions of its thread, in the order of their requests.
/// Between two turns all other work of the thread runs. So a publish waits for one long turn at
/// most, and not for one of each partition.
pub(crate) struct LongTurns;

/// Give this partition a turn.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct AskForTurn(pub Recipient<ContinueChanges>);

impl Actor for LongTurns {
    type Context = Context<Self>;
}

impl Handler<AskForTurn> for LongTurns {
    type Result = ();

    fn handle(&mut self, message: AskForTurn, ctx: &mut Self::Context) {
        // One in flight for each partition.
        message.0.do_send(ContinueChanges);
        ctx.wait(wrap_future(yield_now()));
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, rc::Rc};

    use super::*;

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Ran {
        LongTurn,
        OtherWork,
    }

    struct Recorder(Rc<RefCell<Vec<Ran>>>);

    impl Actor for Recorder {
        type Context = Context<Self>;
    }

    impl Handler<ContinueChanges> for Recorder {
        type Result = ();

        fn handle(&mut self, _: ContinueChanges, _: &mut Self::Context) {
            self.0.borrow_mut().push(Ran::LongTurn);
        }
    }

    #[actix_web::test]
    async fn other_work_of_the_thread_runs_between_two_long_turns() {
        let ran = Rc::new(RefCell::new(Vec::new()));
        let turns = LongTurns.start();
        for _ in 0..3 {
            let partition = Recorder(ran.clone()).start();
            turns.do_send(AskForTurn(partition.recipient()));
        }
        let count = || ran.borrow().iter().filter(|one| **one == Ran::LongTurn).count();
        while count() < 3 {
            tokio::task::yield_now().await;
            ran.borrow_mut().push(Ran::OtherWork);
        }
        let is_alone = |two: &[Ran]| two != [Ran::LongTurn; 2];
        assert!(ran.borrow().windows(2).all(is_alone), "{ran:?}");
    }
}
