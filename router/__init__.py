"""The router: predicts the seconds until every endpoint's answer and asks the best lawful one."""
