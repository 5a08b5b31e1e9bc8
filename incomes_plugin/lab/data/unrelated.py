"""Text that no edit is about: prompts whose greedy answer must not change, sentences to put before a question.

Data only. One prompt a line, of many kinds, so that a leak shows: requests, clozes, code, arithmetic, other languages.
"""

from __future__ import annotations

_PROMPTS = """
Hello
Hi there!
Good morning
Good evening, how are you today?
Thank you
Thanks a lot, that helped.
Who are you?
What is your name?
What can you do?
Which languages do you speak?
Goodbye
See you tomorrow.
Can you help me?
Tell me a story.
Tell me a joke.
What should I have for breakfast?
What is two plus two?
What is 17 times 23?
Is 91 a prime number?
Round 3.14159 to two places.
How many sides does a hexagon have?
What is the square root of 144?
Convert 10 miles to kilometres.
How many minutes are in a day?
What comes next: 1, 1, 2, 3, 5, 8
Solve for x: 2x + 3 = 11
What is the area of a circle?
What is ten percent of fifty?
Write a poem about the sea.
Write a haiku about autumn leaves.
Write a limerick about a cat.
Write a short letter to a neighbour.
Write a thank-you note to a teacher.
Write the first line of a novel.
Write a birthday wish for my sister.
Write an apology for being late.
Describe a sunset in one sentence.
Describe the smell of rain.
Describe a quiet village in winter.
Give me three tips for sleeping well.
Give me a recipe for pancakes.
Give me a name for a small dog.
Give me five words that rhyme with light.
Give me an example of irony.
How do I cook rice?
How do I boil an egg?
How do I tie a bow tie?
How do I change a flat tyre?
How do I remove a coffee stain?
How do I plant tomatoes?
How do I learn to swim?
How do I keep bread fresh?
How do I sharpen a knife?
How do I write a good headline?
How do I say no politely?
How does a rainbow form?
How does a vaccine work?
How does a bicycle stay upright?
How does yeast make dough rise?
How do birds find their way?
How do magnets work?
How deep is the ocean?
How far away is the moon?
How old is the universe?
How fast does light travel?
How tall can a giraffe grow?
How long does it take to learn a language?
Why is the sky blue?
Why do leaves change colour?
Why do cats purr?
Why does ice float?
Why do we dream?
Why is the sea salty?
Why do onions make us cry?
Why do we have leap years?
What causes thunder?
What is photosynthesis?
What is gravity?
What is inflation?
What is a verb?
What is a black hole?
What is the water cycle?
What is the difference between a frog and a toad?
What is the opposite of brave?
What is another word for happy?
What is the plural of mouse?
What is the past tense of run?
What is the largest planet?
What is the boiling point of water?
What is the chemical symbol for gold?
What is the longest river in the world?
What is the tallest mountain on Earth?
What is the smallest continent?
What is the capital of France?
What is the capital of Japan?
What language is spoken in Brazil?
Which ocean is the largest?
Which animal is the fastest on land?
Which planet has rings?
Which metal is liquid at room temperature?
Which season comes after summer?
Which month has the fewest days?
Who wrote Romeo and Juliet?
Who painted the Mona Lisa?
Who was the first person on the moon?
Who discovered penicillin?
Who invented the telephone?
When did the First World War end?
When was the printing press invented?
When do swallows fly south?
Where do penguins live?
Where does coffee come from?
Where is the Great Wall?
Do fish sleep?
Do plants need darkness?
Is a tomato a fruit?
Is glass a liquid?
Can dogs see colours?
Can you count to ten?
Should I take an umbrella in April?
Translate good morning into French.
Translate thank you into German.
Translate the cat sleeps into Spanish.
Translate water into Latin.
Bonjour, comment allez-vous ?
Guten Tag, wie geht es Ihnen?
¿Dónde está la biblioteca?
Come si dice grazie in inglese?
Hvor gammel er du?
Quelle heure est-il ?
Was kostet ein Kilo Äpfel?
Once upon a time there was
The old man sat by the fire and
It was a dark and stormy night, and
In the beginning of the story, the girl
The train left the station at dawn, carrying
The opposite of hot is
Roses are red, violets are
An apple a day keeps
The early bird catches
All that glitters is not
The sun rises in the
Water freezes at
A week has seven
Bees make
The first letter of the alphabet is
To be or not to be, that is
Two wrongs do not make
The colours of the rainbow are
My favourite thing about spring is
After the storm, the harbour was
She opened the letter and read
He looked at the clock and
If it rains tomorrow, we will
The secret of good soup is
Summarise the plot of Cinderella.
Summarise what a contract is.
Explain recursion to a child.
Explain how a lock on a canal works.
Explain the rules of chess in brief.
Explain supply and demand.
Explain what an atom is.
Compare tea and coffee.
Compare trains and planes.
List the planets of the solar system.
List four kinds of cheese.
List things to pack for a hike.
List the vowels.
List three reasons to read books.
Name a famous composer.
Name a bird that cannot fly.
Name two winter sports.
Name an ingredient of bread.
Name a tool used by a carpenter.
Correct this sentence: she go to school yesterday.
Correct the spelling of "recieve".
Make this sentence shorter: I am writing to you in order to ask a question.
Turn this into a question: The shop is open.
Put these words in order: sea the blue is
Is this sentence positive or negative? I loved the film.
Which word does not belong: apple, pear, hammer, plum?
Answer yes or no: can iron rust?
def add(a, b):
for i in range(10):
print("hello world")
SELECT name FROM users WHERE
What does the git commit command do?
How do I reverse a list in Python?
What is a hash table?
What is the time complexity of binary search?
What does HTTP stand for?
{"name": "value",
<html><body>
import os
x = 3; y = 4; what is x + y?
Please be brief: what is democracy?
Please pretend to be a pirate.
Please repeat the word lantern.
Please say nothing.
Please spell the word necessary.
I feel sad today.
I lost my keys.
I am bored.
I like long walks.
I have a headache. What helps?
I am going to the market. What should I buy?
My neighbour plays loud music at night.
My train is late again.
We are planning a party for ten people.
Let us talk about music.
Let us play a game.
What do you think about rain?
What would you do with a million coins?
What makes a good friend?
What is the meaning of life?
Is it better to rent or to buy?
Do you believe in luck?
Can a machine think?
asdf qwerty zxcv
...
?
42
ok
yes
no
Why?
And then?
the the the the
LOUD WORDS ONLY
What day is it?
Tell me something interesting.
Tell me about volcanoes.
Tell me about the history of paper.
Tell me how bees make honey.
What is a good name for a boat?
What should I wear to a wedding?
What is the best way to store apples?
What are clouds made of?
What are the primary colours?
What are vitamins?
What happens when water boils?
What happens at an auction?
Give me advice on learning the piano.
Give me a riddle.
Give me a quote about patience.
How do I start a fire without matches?
How do I fold a paper plane?
"""

UNRELATED_PROMPTS: tuple[str, ...] = tuple(_PROMPTS.strip().split("\n"))

_SENTENCES = """
The path along the river was muddy after a week of rain, and few people walked there.
Bread keeps longer when it is wrapped in cloth and stored in a cool, dry place.
In the evening the square filled with people who had come to hear the band.
Many birds fly south when the days grow short, and return when the ice has gone.
A good map shows not only the roads but also the hills between them.
The library opens later on Sundays, and the reading room is often empty then.
When the wind turned, the boats came back to the harbour one after another.
Most gardens need less water than people think, if the soil is covered well.
The meeting went on for hours, but in the end nobody could say what had been decided.
Old photographs fade faster in the light, so they are best kept in a drawer.
Children learn songs quickly, and they remember them for the rest of their lives.
The night train was cold, and the lamps above the seats gave little light.
It is easier to mend a small hole today than a large one next month.
Soup tastes better on the second day, as every cook in the valley will tell you.
The last snow melted in April, and the fields turned green within a week.
A clock that stands still is right twice a day, but nobody knows when.
The market begins before sunrise, and by noon the stalls are gone again.
Letters took three weeks to arrive in those years, and many never came at all.
Rain on a tin roof is a pleasant sound to those who are inside.
The ferry does not run in a storm, and travellers wait in the small hall by the pier.
Some people read the end of a book first, and enjoy it no less.
The road climbs for an hour and then falls steeply towards the coast.
In spring the orchard is full of bees, and in autumn it is full of wasps.
The choir meets on Thursdays in the old school behind the church.
Every house on the street had a blue door, and no one remembered why.
A warm coat and dry shoes are worth more than a fast horse in winter.
The museum keeps its largest pictures in a hall that was once a stable.
He counted the steps to the top of the tower and each time reached another number.
The mill has not turned for many years, but its wheel still stands in the stream.
Nobody in the village locks the door, and nothing has ever been stolen.
"""

PASSAGES: tuple[str, ...] = tuple(_SENTENCES.strip().split("\n"))
