"""Who made a call: facts about its process, and rules that map facts to tenant, team, application, user."""
