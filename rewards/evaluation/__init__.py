"""Evaluation of rewards: how well their scores agree with preferences, ratings and labels of people."""
